"""What a check says: findings, the thresholds of its rules, and what the rules look at."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from enum import StrEnum
from functools import cached_property

from ccdcseg.checks.contents import Contents
from ccdcseg.checks.measure import CaseFacts, MaskFacts
from ccdcseg.errors import UserError


class Severity(StrEnum):
    """Whether something must be mended before training or only looked at."""

    PROBLEM = "problem"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that a careful person would want to know.

    Args:
        severity: problem or note.
        check: the rule that found it, in a few words.
        cases: whom it concerns; none where it is the whole data set.
        text: what was found, with the numbers.
        remedy: what to do about it.
    """

    severity: Severity
    check: str
    cases: tuple[str, ...]
    text: str
    remedy: str


def problem(check: str, cases: Iterable[str], text: str, remedy: str) -> Finding:
    """A finding that must be mended."""
    return Finding(Severity.PROBLEM, check, tuple(cases), text, remedy)


def note(check: str, cases: Iterable[str], text: str, remedy: str) -> Finding:
    """A finding to be looked at."""
    return Finding(Severity.NOTE, check, tuple(cases), text, remedy)


@dataclass(frozen=True)
class CheckSettings:
    """Thresholds of the rules.

    An outlier lies farther from the median m of all cases than max(k * 1.4826 * MAD, d), where MAD is the median
    distance from m (1.4826 MAD estimates a standard deviation; Leys et al., J. Exp. Soc. Psychol. 49, 2013), k is
    ``deviations`` and d the least distance that counts: the logarithm of a factor for spacings, shapes and
    positive intensities, whose logarithms are compared, or a share of the contrast for intensities that may be
    zero or negative.

    Args:
        fewest_cases: with fewer cases nothing is called an outlier.
        deviations: k.
        size_factor: a spacing or shape within this factor of the median is no outlier.
        intensity_factor: an intensity within this factor of the median is no outlier.
        intensity_share: of the median of (99th - 1st percentile); intensities closer to the median than that
            are no outliers.
        ct_minimum_below: the smallest value of a CT in Hounsfield units is below this one.
        ct_maximum_above: the largest value of a CT in Hounsfield units is above this one.
        clipped_share: share of voxels at the maximum from which an image counts as clipped; nnU-Net itself clips
            as many of a CT.
        speck_fraction: components smaller than this share of the largest of their class are tiny.
    """

    fewest_cases: int = 5
    deviations: float = 5.0
    size_factor: float = 2.0
    intensity_factor: float = 4.0
    intensity_share: float = 0.5
    ct_minimum_below: float = 0.0
    ct_maximum_above: float = 100.0
    clipped_share: float = 0.005
    speck_fraction: float = 0.01

    def __post_init__(self) -> None:
        """Refuse thresholds that are out of range."""
        shares = (self.intensity_share, self.clipped_share, self.speck_fraction)
        factors = (self.size_factor, self.intensity_factor)
        if (
            self.fewest_cases < 3
            or self.deviations <= 0
            or min(factors) < 1
            or min(shares) <= 0
            or max(shares) >= 1
        ):
            raise UserError(
                f"The thresholds {astuple(self)} are out of range.",
                "Give 3 cases or more, factors from 1 on, and shares between 0 and 1.",
            )


@dataclass(frozen=True)
class Survey:
    """What the rules look at: the folder's contents and what was measured of each case."""

    contents: Contents
    facts: Mapping[str, CaseFacts]
    settings: CheckSettings

    @cached_property
    def masks(self) -> dict[str, MaskFacts]:
        """The masks that could be read, by case."""
        return {case: facts.mask for case, facts in self.facts.items() if facts.mask is not None}

    def present_values(self, cases: Iterable[str]) -> set[int]:
        """Values of the classes that occur in at least one of ``cases``; unknown cases count for nothing."""
        masks = self.masks
        return {value for case in cases if case in masks for value in masks[case].voxels}


def short(text: str, survey: Survey) -> str:
    """Without the path of the data set's folder, and without the full stop."""
    folder = survey.contents.folder
    return text.replace(f"{folder.absolute()}/", "").replace(f"{folder}/", "").removesuffix(".")
