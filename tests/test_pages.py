"""What the pages show works: every command block in a shell, in its order, and every snippet of Python.

Each page begins in an empty folder and home, with scans where it says that scans are. See ``warm/commands.py`` for
what is made small.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from ccdcseg.datasets.own import Layout, OwnData, prepare_own
from ccdcseg.phantom import write_phantom

ROOT = Path(__file__).parents[1]
NOT_RUN = {
    "README.md": ['pip install ".[nnunet]"', "pip install .", "make demo"],
    "docs/quickstart.md": ["make demo", 'pip install ".[nnunet]"'],
}
"""What fetches packages, or takes minutes: other tests build the package and run the demonstration."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")]


def blocks(page: str, language: str) -> list[str]:
    """The code of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("release") / "release", 5, 0)


@pytest.fixture
def run_page(commands: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    """Run the command blocks of a page, or a block of them, in one shell; what they print."""

    def run(page: str, **variables: str) -> str:
        script = "\n".join(blocks(page, "bash"))
        for line in NOT_RUN.get(page, ()):
            assert line in script
            script = re.sub(rf"^(time )?{re.escape(line)}(?= *(#.*)?$)", ":", script, flags=re.M)
        environment = commands | {"HOME": str(tmp_path)} | variables
        shell = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(
            shell, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def write_scans(release: Path, folder: Path, image: str, without_mask: int = 0) -> None:
    """A scan of each phantom, every second voxel in the plane, and a mask of its heart, as a page names them."""
    for place, patient in enumerate(sorted(release.rglob("patient*/"))):
        mask = min(patient.glob("*_gt.nii.gz"))
        target = folder / "SCANS" / patient.name
        target.mkdir(parents=True)
        write_coarse(mask.with_name(mask.name.replace("_gt", "")), target / image)
        if place >= without_mask:
            write_coarse(mask, target / "mask.nii.gz", lambda labels: labels > 0)


def write_coarse(source: Path, target: Path, change: Callable[..., Any] = lambda array: array) -> None:
    read = nibabel.load(source)
    array = change(np.asarray(read.dataobj)[::2, ::2]).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, read.affine @ np.diag([2, 2, 1, 1])), target)


def test_readme(run_page, release: Path, tmp_path: Path):
    write_scans(release, tmp_path, "scan.nii.gz", without_mask=1)
    (tmp_path / "images").mkdir()
    scan = next((tmp_path / "SCANS").rglob("scan.nii.gz"))
    (tmp_path / "images" / "new_0000.nii.gz").write_bytes(scan.read_bytes())
    shown = run_page("README.md")
    assert "Prediction" in shown
    assert (tmp_path / "check.html").exists()
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "masks" / "new.nii.gz").exists()


def test_quickstart(run_page, release: Path, tmp_path: Path):
    write_scans(release, tmp_path, "t1.nii.gz")
    shown = run_page("docs/quickstart.md")
    assert "Paired comparisons" in shown
    assert (tmp_path / "report.html").exists()


def test_the_steps_from_python(commands, release: Path, tmp_path: Path):
    write_scans(release, tmp_path, "scan.nii.gz")
    (script,) = blocks("docs/python.md", "python")
    (tmp_path / "steps.py").write_text(script)
    command = [f"{commands['PATH'].split(':')[0]}/python", "steps.py"]
    done = subprocess.run(command, cwd=tmp_path, env=commands, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"(nnunet|ccdc): Dice \d+\.\d % of \d patients\n" * 2, done.stdout)
    assert (tmp_path / "report.html").exists()


@pytest.mark.filterwarnings("default")
def test_the_loss_alone(capsys: pytest.CaptureFixture[str]):
    (snippet,) = blocks("README.md", "python")
    names: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["loss"].requires_grad
    assert any(parameter.grad is not None for parameter in names["ccdc"].parameters())


def test_in_nnunet(run_page, release: Path, tmp_path: Path):
    """The raw folder of a data set with the page's number is there, and the three variables are set."""
    folders = {name: tmp_path / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    write_scans(release, tmp_path, "scan.nii.gz")
    data = OwnData("Hearts", {"heart": 1}, ["MRI"])
    found = Layout(("{patient}/scan.nii.gz",), "{patient}/mask.nii.gz")
    prepare_own(tmp_path / "SCANS", folders["nnUNet_raw"], 27, workers=1, data=data, found_by=found)
    run_page("docs/nnunet.md", **{name: str(folder) for name, folder in folders.items()})
    trained = {path.parent.parent.name for path in folders["nnUNet_results"].rglob("checkpoint_final.pth")}
    assert trained == {f"nnUNetTrainerCCDC__nnUNetPlans__{name}" for name in ("2d", "3d_fullres")}
