"""What a preset says of a method: its settings, and how its loss enters the sum."""

from dataclasses import asdict

import pytest

from ccdcseg.losses import CCDCSettings, ContrastiveSegSettings
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.preset import Preset
from ccdcseg.nnunet.terms import CCDCTerm, Combination, ContrastiveSegTerm, GDLTerm

CONTRASTIVE = {
    "ccdc": (1.0, 0),
    "reco": (1.0, 0),
    "contrastive_seg": (0.1, 5000),
    "region_contrast": (0.1, 0),
}
ON_LOGITS = ["focal", "gdl", "topk", "mcc"]


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_weight_and_start_are_those_of_the_papers(name: str):
    section = getattr(Preset(), name)
    weight, start = CONTRASTIVE[name]
    assert (section.weight, section.start_iteration) == (weight, start)
    assert section(start) == weight
    assert start == 0 or section(start - 1) == 0


@pytest.mark.parametrize("name", ON_LOGITS)
def test_a_loss_of_the_logits_is_added_with_weight_1(name: str):
    section = getattr(Preset(), name)
    assert (section.weight, section.combination) == (1.0, Combination.SUM)


@pytest.mark.parametrize("name", [*CONTRASTIVE, *ON_LOGITS])
def test_the_rest_are_the_settings_of_the_loss(name: str):
    section = type(getattr(Preset(), name))
    share = {"weight", "start_iteration"} if name in CONTRASTIVE else {"weight", "combination"}
    settings = section.__mro__[1]
    assert settings.__name__ == METHODS[name].settings.split(":")[1]
    assert section.__dataclass_fields__.keys() - settings.__dataclass_fields__.keys() == share
    assert settings(**settings.part_of(section())) == settings()


def test_both_parts_are_checked():
    with pytest.raises(ValueError, match="start_iteration must be at least 0"):
        CCDCTerm(start_iteration=-1)
    with pytest.raises(ValueError, match="core_threshold must be between 0 and 1"):
        CCDCTerm(core_threshold=2)
    with pytest.raises(ValueError, match="base_temperature must be above 0"):
        ContrastiveSegTerm(base_temperature=0)
    with pytest.raises(ValueError, match="combination must be one of sum, cross_entropy, alone"):
        GDLTerm(combination="both")


def test_a_part_is_taken_by_the_names_of_its_class():
    term = ContrastiveSegTerm(weight=0.5, positives=7)
    part = ContrastiveSegSettings.part_of(term)
    assert part == {
        name: value for name, value in asdict(term).items() if name not in ("weight", "start_iteration")
    }
    assert part["positives"] == 7
    assert "weight" not in CCDCSettings.part_of(CCDCTerm())
