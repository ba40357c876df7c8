"""The command ``ccdcseg``: parse, call, print. Everything slow is imported by the command that needs it."""

# ruff: noqa: I001 - the help lists commands in the order in which these are imported
from ccdcseg.cli import prepare, data, annotate, review, runs, experiments, program
from ccdcseg.cli.app import main

__all__ = ["annotate", "data", "experiments", "main", "prepare", "program", "review", "runs"]
