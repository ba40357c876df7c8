"""What the documents promise of the project itself."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions, requires
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


def test_no_change_is_told_twice():
    entries = [
        line[:50] for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("- ")
    ]
    assert not [entry for entry, count in Counter(entries).items() if count > 1]


ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {others}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
"""
"""Python code that makes an environment of all that is installed but ``others``."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    """Runs code with the wheel as ``pip install ccdcseg`` installs it: with torch and NumPy and what these need."""
    wheels, place = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", wheels]
    subprocess.run([*pip, "wheel", *options, ROOT], check=True, timeout=120)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", place, wheel], check=True, timeout=120)
    needed = installed_by("torch") | installed_by("numpy")
    others = {name for name, found in packages_distributions().items() if not needed & set(map(plain, found))}
    others -= {"ccdcseg", *sys.stdlib_module_names}

    def run(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", ALONE.format(others=others) + code]
        environment = {"PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def plain(name: str) -> str:
    """A distribution's name, normalised."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_by(name: str) -> set[str]:
    """A distribution and all that it requires, without extras."""
    found, todo = set[str](), [name]
    while todo:
        one = plain(todo.pop())
        if one not in found:
            found.add(one)
            todo += [re.split(r"[\s;<>=!~\[(]", text)[0] for text in required(one) if "extra ==" not in text]
    return found


def required(name: str) -> list[str]:
    """What a distribution requires; nothing where it is not installed, as on other systems."""
    try:
        return requires(name) or []
    except ImportError:
        return []


def test_the_losses_need_torch_and_numpy_alone(alone):
    code = """
import torch
from ccdcseg.losses import CCDCLoss
import ccdcseg
criterion = CCDCLoss(in_channels=8, num_classes=3)
features = torch.randn(2, 8, 16, 16, requires_grad=True)
loss = criterion(features, 9 * torch.randn(2, 3, 16, 16), torch.randint(3, (2, 1, 16, 16)))
loss.backward()
print(ccdcseg.__file__, float(loss), features.grad is not None)
"""
    result = alone(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("True\n")
    assert str(ROOT) not in result.stdout


def test_the_command_without_its_packages_says_what_to_install(alone):
    result = alone("from ccdcseg.__main__ import main; main()")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "ccdcseg[nnunet]" in line


def test_what_is_imported_is_declared():
    """Nothing is there only because something else needs it; on the other hand nothing is declared in vain."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        plain(re.split(r"[<>=]", text)[0])
        for text in [*project["dependencies"], *project["optional-dependencies"]["nnunet"]]
    }
    known = packages_distributions()
    names = {name for path in (ROOT / "src" / "ccdcseg").rglob("*.py") for name in imported(path)}
    foreign = {name for name in names if name not in sys.stdlib_module_names} - {"ccdcseg", "submitit"}
    assert {plain(known[name][0]) for name in foreign} == declared


def imported(path: Path) -> set[str]:
    """Packages that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain_imports = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in (*plain_imports, *modules)}


def test_rooms_import_each_other_in_one_direction():
    """Packages of the package, such as ``losses``; what lies beside them is of no room."""
    source = ROOT / "src" / "ccdcseg"
    rooms: dict[str, set[str]] = {path.parent.name: set() for path in source.glob("*/__init__.py")}
    for path in source.glob("*/**/*.py"):
        room = path.relative_to(source).parts[0]
        found = re.findall(r"^ *from ccdcseg\.(\w+)", path.read_text(), re.MULTILINE)
        rooms[room] |= {other for other in found if other in rooms and other != room}
    order = [*TopologicalSorter(rooms).static_order()]
    assert order.index("losses") < order.index("nnunet") < order.index("cli")
    assert not rooms["losses"]


def test_no_room_holds_more_than_a_fifth_of_all_lines():
    source = ROOT / "src" / "ccdcseg"
    lines = Counter[str]()
    for path in source.rglob("*.py"):
        lines[path.relative_to(source).parts[0]] += len(path.read_text().splitlines())
    (room, most), *_ = lines.most_common()
    assert most <= lines.total() / 5, room


def test_documents_link_to_files_that_exist():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "study").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if not link.startswith(("http://", "https://", "mailto:")):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_every_setting_is_documented():
    from ccdcseg.nnunet.terms import CCDCTerm

    text = (ROOT / "docs" / "method.md").read_text()
    for name in CCDCTerm.__dataclass_fields__:
        if not name.startswith("_"):
            assert f"`{name}`" in text, name


def test_modules_have_mirrored_tests():
    """Every module with behaviour of its own has a test file at the same place; a command is tested as such."""
    folded = {
        "losses/parts/settings",
        "nnunet/paths",
        "nnunet/train",
        "nnunet/trained",
        "nnunet/runs",
        "nnunet/selections",
    }
    for module in (ROOT / "src" / "ccdcseg").rglob("*.py"):
        name = module.relative_to(ROOT / "src" / "ccdcseg").with_suffix("").as_posix()
        elsewhere = name in folded or name.startswith(("nnunet/discovery/", "cli/"))
        if elsewhere or module.name in ("__init__.py", "__main__.py"):
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


def test_no_line_of_a_page_is_longer_than_120_characters():
    """But rows of tables, which Markdown cannot break."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            assert len(line) <= 120 or line.startswith("|"), f"{page.name}, line {number}"
