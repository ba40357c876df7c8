"""The command ``ccdcseg``; ``python -m ccdcseg``, unlike other modules, takes no code from the current folder."""

import sys


def main() -> None:
    """Run the command line, or say what has to be installed for it."""
    try:
        from ccdcseg.cli import main as run  # noqa: PLC0415 - may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ccdcseg"):
            raise
        print(
            f"{error.name} is not installed: ccdcseg is there with its losses alone. For the commands, install "
            "ccdcseg[nnunet]; in a clone: pip install '.[nnunet]'",
            file=sys.stderr,
        )
        sys.exit(2)
    run()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]
    main()
