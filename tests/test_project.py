"""What the documents promise of the project itself."""

import re
from pathlib import Path

import pytest
import yaml

from ccdcseg import __version__

ROOT = Path(__file__).parents[1]


def test_citation_and_changelog_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["references"][0]["doi"] == "10.1016/j.patcog.2023.109881"
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_documents_link_to_files_that_exist():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if not link.startswith(("http://", "https://", "mailto:")):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_every_setting_is_documented():
    from ccdcseg.losses import CCDCSettings

    text = (ROOT / "docs" / "method.md").read_text()
    for name in CCDCSettings.__dataclass_fields__:
        if not name.startswith("_"):
            assert f"`{name}`" in text, name


def test_modules_have_mirrored_tests():
    """Every module with behaviour of its own has a test file at the same place."""
    folded = {"losses/settings", "nnunet/paths", "nnunet/train", "nnunet/runs", "nnunet/selections"}
    for module in (ROOT / "src" / "ccdcseg").rglob("*.py"):
        name = module.relative_to(ROOT / "src" / "ccdcseg").with_suffix("").as_posix()
        if module.name in ("__init__.py", "__main__.py") or "/discovery/" in f"/{name}" or name in folded:
            continue
        assert (ROOT / "tests" / Path(name).parent / f"test_{Path(name).name}.py").exists(), name


@pytest.mark.parametrize("name", ["demo", "test", "check", "bench", "docs"])
def test_makefile_has_the_targets(name: str):
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.M)


def test_ci_runs_what_the_readme_says():
    ci = (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    for command in ("make check", "make test"):
        assert command in ci
        assert command in readme
