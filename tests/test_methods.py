import importlib
import json
from pathlib import Path

import pytest

from ccdcseg.methods import METHODS

ROOT = Path(__file__).parents[1]
LOSSES = {name: method for name, method in METHODS.items() if method.builder}


def load(place: str) -> type:
    module, name = place.split(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_card_and_a_trainer(name: str):
    from ccdcseg.nnunet.discovery import ccdcseg_trainers

    card = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    trainer = METHODS[name].trainer
    for needed in ("## Formula", "## Source", "## Our choices", f"--method {name}", trainer):
        assert needed in card, needed
    assert getattr(ccdcseg_trainers, trainer).__name__ == trainer
    assert trainer in ccdcseg_trainers.__all__
    assert METHODS[name].name == name


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_test_settings_and_a_section_of_presets(name: str):
    from ccdcseg.nnunet.preset import Preset

    method = LOSSES[name]
    module = method.builder.split(":")[0].removeprefix("ccdcseg.").replace(".", "/")
    assert (ROOT / "tests" / Path(module).parent / f"test_{Path(module).name}.py").exists()
    settings = load(method.settings)
    assert load(method.builder).__doc__
    assert isinstance(getattr(Preset(), method.section), settings)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_exported_and_on_the_page_with_its_settings(name: str):
    page = (ROOT / "docs" / "api.md").read_text()
    for place in (LOSSES[name].builder, LOSSES[name].settings):
        package, public = ".".join(place.split(".")[:2]), place.split(":")[1]
        assert public in importlib.import_module(package).__all__
        assert f"::: {package}.{public}\n" in page


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_in_the_contents_of_the_pages(name: str):
    assert f": methods/{name}.md\n" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.parametrize("name", LOSSES)
def test_every_setting_is_on_the_card(name: str):
    from ccdcseg.nnunet.preset import Preset

    page = "method.md" if LOSSES[name].section == "ccdc" else f"methods/{name}.md"
    text = (ROOT / "docs" / page).read_text()
    for field in type(getattr(Preset(), LOSSES[name].section)).__dataclass_fields__:
        if not field.startswith("_"):
            assert f"`{field}`" in text, field


def test_methods_are_printed(ccdcseg):
    table = ccdcseg("methods")
    listed = json.loads(ccdcseg("methods", "--json").out)
    assert [entry["name"] for entry in listed] == list(METHODS)
    for name, entry in zip(METHODS, listed, strict=True):
        assert name in table.out
        assert all(entry[key] for key in ("title", "trainer", "source", "licence", "deviation"))


def test_an_unknown_method(workspace, ccdcseg):
    result = ccdcseg("train", 901, "--method", "magic")
    assert result.code == 2
    assert "There is no method magic" in result.err
