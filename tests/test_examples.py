"""The examples run as they stand."""

import doctest
import importlib
import pkgutil
import re
import runpy
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from ccdcseg import losses

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("default")
def test_plain_pytorch(capsys: pytest.CaptureFixture[str]):
    names = runpy.run_path(str(ROOT / "examples" / "plain_pytorch.py"))
    losses = [float(value) for value in re.findall(r"step \d+: ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 20
    assert all(parameter.grad is not None for parameter in names["parameters"])
    features = names["body"](names["label"].float())
    segmentation = names["segmentation"](names["layer"](features), names["label"])
    assert segmentation < losses[0]


def test_the_page_of_the_library_prints_what_it_says():
    result = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert result.attempted >= 10
    assert not result.failed


MODULES = [module.name for module in pkgutil.walk_packages(losses.__path__, "ccdcseg.losses.")]


@pytest.mark.parametrize("name", [*MODULES, "ccdcseg.nnunet.features"])
def test_examples_in_docstrings(name: str):
    module = importlib.import_module(name)
    assert not doctest.testmod(module, extraglobs={"torch": importlib.import_module("torch")}).failed


PUBLIC = [getattr(losses, name) for name in losses.__all__]
CALLED = [one for one in PUBLIC if not isinstance(one, type) or issubclass(one, (nn.Module, losses.Schedule))]


@pytest.mark.parametrize("public", CALLED, ids=lambda one: one.__name__)
def test_what_is_called_has_an_example(public: Any):
    assert ">>> " in public.__doc__


def test_every_value_of_every_setting_is_on_the_page():
    page = (ROOT / "docs" / "api.md").read_text()
    for name in losses.__all__:
        found = getattr(losses, name)
        if isinstance(found, type) and issubclass(found, StrEnum):
            values = ", ".join(f"`{member.value}`" for member in found)
            assert f"| `{name}` | {values} |" in page
