"""Commands that start warm, for tests that run many of them; see ``warm/commands.py``."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

WARM = Path(__file__).parent / "warm"
COMMANDS = ("ccdcseg", "python", "nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict")


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which the commands are found, those of `commands.py`."""
    place = tmp_path_factory.mktemp("commands")
    for name in COMMANDS:
        script = place / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -SEs {WARM / "ask.py"} {name} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    server = [sys.executable, "-P", str(WARM / "commands.py"), str(place / "socket")]
    found = os.pathsep.join(filter(None, (str(WARM.parent), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": found}
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith("nnUNet")},
            "PATH": f"{place}:{os.environ['PATH']}",
            "CCDCSEG_TEST_SOCKET": str(place / "socket"),
            "OMP_NUM_THREADS": "1",
            "nnUNet_def_n_proc": "1",
        }
        process.kill()
