"""Rules that compare cases with each other: spacing, shape, orientation and intensities."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

from ccdcseg.checks.findings import CheckSettings, Finding, Survey, note, problem
from ccdcseg.checks.measure import ChannelFacts, Grid
from ccdcseg.texts import significant

_STATISTICS = {"p1": "1st percentile", "median": "median", "mean": "mean", "p99": "99th percentile"}


def far_from_others(values: NDArray[np.float64], deviations: float, at_least: float) -> NDArray[np.bool_]:
    """Which values are outliers: farther from the median m than max(deviations * 1.4826 * MAD, at_least).

    Args:
        values: one a case, shape (n,) or (n, k) for k independent quantities.
        deviations: robust standard deviations.
        at_least: distances up to this one never count.

    Returns:
        As large as ``values``. MAD is the median of abs(values - m) over the cases.
    """
    distances = np.abs(values - np.median(values, axis=0))
    limit = np.maximum(deviations * 1.4826 * np.median(distances, axis=0), at_least)
    return np.asarray(distances > limit * (1 + 1e-9))


def grid_findings(survey: Survey) -> Iterator[Finding]:
    """Spacings and shapes far from the others', and axes that run another way than most."""
    grids = {case: facts.grid for case, facts in survey.facts.items() if facts.grid is not None}
    if len(grids) >= survey.settings.fewest_cases:
        yield from _size_findings(
            {case: grid.spacing_mm for case, grid in grids.items()},
            "spacing",
            " mm",
            survey.settings,
            "See whether the header is right. If so, nnU-Net resamples the scan: mind it when you choose whom "
            "to train on.",
        )
        yield from _size_findings(
            {case: grid.shape for case, grid in grids.items()},
            "shape",
            "",
            survey.settings,
            "See whether it is the whole scan, and of the same kind as the others.",
        )
    yield from _orientation_findings(grids)


def intensity_findings(survey: Survey) -> Iterator[Finding]:
    """Constant, clipped and outlying images, and CT whose values are no Hounsfield units."""
    for number, channel in enumerate(survey.contents.channels):
        found = {
            case: facts.channels[number] for case, facts in survey.facts.items() if number in facts.channels
        }
        name = f"channel {number} ({channel})"
        varied = {case: facts for case, facts in found.items() if facts.minimum < facts.maximum}
        yield from _case_findings(_constant, found, name, survey.settings)
        for rule in (_no_hounsfield, _clipped) if channel.casefold() == "ct" else (_clipped,):
            yield from _case_findings(rule, varied, name, survey.settings)
        if len(varied) >= survey.settings.fewest_cases:
            yield from _intensity_outliers(varied, name, survey.settings)


def _size_findings(
    sizes: Mapping[str, Sequence[float]], what: str, unit: str, settings: CheckSettings, remedy: str
) -> Iterator[Finding]:
    values = np.array([*sizes.values()], dtype=np.float64)
    far = far_from_others(np.log(values), settings.deviations, log(settings.size_factor))
    usual = _product(np.median(values, axis=0))
    for case, is_far in zip(sizes, far, strict=True):
        if is_far.any():
            text = f"{_product(sizes[case])}{unit} (z, y, x); median of all cases {usual}{unit}"
            yield note(f"{what} outlier", [case], text, remedy)


def _orientation_findings(grids: Mapping[str, Grid]) -> Iterator[Finding]:
    counts = Counter(grid.axes for grid in grids.values())
    usual = counts.most_common(1)[0][0] if counts else ""
    for case, grid in grids.items():
        if grid.axes != usual:
            yield note(
                "mixed orientation",
                [case],
                f"axes {grid.axes}; {usual} in {counts[usual]} of {len(grids)} cases",
                "nnU-Net does not turn scans: reorient all to the same axes, unless they are oblique and differ "
                "by little.",
            )


_Finder = Callable[[str, str, ChannelFacts, CheckSettings], Finding | None]
"""Case, name of the channel, its facts and the thresholds to a finding, if there is one."""


def _case_findings(
    find: _Finder, found: Mapping[str, ChannelFacts], name: str, settings: CheckSettings
) -> Iterator[Finding]:
    for case, facts in found.items():
        if finding := find(case, name, facts, settings):
            yield finding


def _constant(case: str, name: str, facts: ChannelFacts, settings: CheckSettings) -> Finding | None:
    del settings
    if facts.minimum < facts.maximum:
        return None
    text = f"{name}: every voxel is {facts.minimum:g}"
    return problem("constant image", [case], text, "Export the scan again, or leave it out.")


def _no_hounsfield(case: str, name: str, facts: ChannelFacts, settings: CheckSettings) -> Finding | None:
    if facts.minimum < settings.ct_minimum_below and facts.maximum > settings.ct_maximum_above:
        return None
    return problem(
        "no Hounsfield units",
        [case],
        f"{name}: values from {facts.minimum:g} to {facts.maximum:g}",
        'Apply RescaleSlope and RescaleIntercept, or name the channel otherwise than "CT" in dataset.json if it is '
        "none.",
    )


def _clipped(case: str, name: str, facts: ChannelFacts, settings: CheckSettings) -> Finding | None:
    if facts.share_at_maximum < settings.clipped_share:
        return None
    return note(
        "clipped intensities",
        [case],
        f"{name}: {100 * facts.share_at_maximum:.2g} % of the voxels at the maximum, {facts.maximum:g}",
        "Export the scan with its full range of values, if that can be had.",
    )


def _intensity_outliers(
    found: Mapping[str, ChannelFacts], name: str, settings: CheckSettings
) -> Iterator[Finding]:
    contrast = float(np.median([facts.p99 - facts.p1 for facts in found.values()]))
    odd: dict[str, list[str]] = {case: [] for case in found}
    for attribute, title in _STATISTICS.items():
        values = np.array([getattr(facts, attribute) for facts in found.values()])
        usual = float(np.median(values))
        for case, value, is_far in zip(
            found, values, _far_intensities(values, contrast, settings), strict=True
        ):
            if is_far:
                odd[case].append(
                    f"{title} {significant(value, 4)} (median of all cases {significant(usual, 4)})"
                )
    for case, texts in odd.items():
        if texts:
            yield note(
                "intensity outlier",
                [case],
                f"{name}: {', '.join(texts)}",
                "Look at the picture: another sequence, another scaling or a broken export?",
            )


def _far_intensities(
    values: NDArray[np.float64], contrast: float, settings: CheckSettings
) -> NDArray[np.bool_]:
    if values.min() > 0:
        return far_from_others(np.log(values), settings.deviations, log(settings.intensity_factor))
    return far_from_others(values, settings.deviations, settings.intensity_share * contrast)


def _product(numbers: Sequence[float] | NDArray[np.float64]) -> str:
    return " x ".join(significant(number, 4) for number in numbers)
