"""The MS-CMRSeg release (Zhuang et al., Medical Image Analysis 81, 2022) as an nnU-Net raw folder."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccdcseg.datasets.acdc import LABELS
from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.release import Notes, Release, free_folder, write_dataset, write_pair, write_unlabelled
from ccdcseg.datasets.sequences import CardiacSequence
from ccdcseg.datasets.volumes import Volume, read_image
from ccdcseg.datasets.walk import walk
from ccdcseg.errors import UserError
from ccdcseg.processes import Progress
from ccdcseg.texts import exactly

CHALLENGE_VALUES = {"RV": 600, "Myo": 200, "LV": 500}
"""Values of the challenge's own masks; a later release has those of ``LABELS``, which are ACDC's."""

_SUFFIXES = {
    CardiacSequence.LGE: ("lge", "de"),
    CardiacSequence.T2: ("t2",),
    CardiacSequence.BSSFP: ("c0", "bssfp"),
}
_FILE = re.compile(
    r"(?P<release>patient|subject)(?P<number>\d+)_(?P<suffix>[^_.]+)(?P<mask>_manual)?\.nii(\.gz)?"
)
_COPY = re.compile(r"(patient|subject)\d+_(?P<suffix>[a-z0-9]+)(_manual)?[^a-z0-9_.].*\.nii(\.gz)?")
"""Such as ``patient3_LGE (1).nii.gz``."""

_RELEASE = Release(
    name="MSCMRSeg",
    description="Cardiac MRI of 45 patients of the Multi-sequence Cardiac MR Segmentation Challenge 2019",
    reference="X. Zhuang, J. Xu, X. Luo, C. Chen, et al. Cardiac segmentation on late gadolinium enhancement MRI: "
    "A benchmark study from multi-sequence cardiac MR segmentation challenge. Medical Image Analysis 81, 102528, "
    "2022. doi:10.1016/j.media.2022.102528. X. Zhuang. Multivariate Mixture Model for Myocardial Segmentation "
    "Combining Multi-Source Images. IEEE TPAMI 41(12), 2933-2946, 2019. doi:10.1109/TPAMI.2018.2869576",
    licence="The terms agreed to when registering for the challenge; whoever uses the data cites the reference",
    labels=LABELS,
)


@dataclass(frozen=True)
class _Scan:
    case: Case
    image: Path
    mask: Path | None


def prepare_mscmrseg(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    sequence: CardiacSequence = CardiacSequence.LGE,
    progress: Progress | None = None,
    workers: int = 1,
) -> Path:
    """Turn one sequence of a raw MS-CMRSeg release into an nnU-Net raw folder with a table of cases.

    Both releases are taken: the challenge's (``patient1_LGE.nii.gz``, masks of 200, 500 and 600) and the later
    one (``subject1_DE.nii.gz``, masks of 1 to 3). Images without a mask go to ``imagesTs`` and are no cases.

    Args:
        source: the unpacked release; images and masks are found in it and its folders by their names.
        sequence: which images.
        raw_root, dataset_id, progress, workers: see `ccdcseg.datasets.own.prepare_own`.

    Returns:
        The new folder, ``Dataset{ID}_MSCMRSeg_{SEQUENCE}``.

    Raises:
        UserError: no image with a mask is found, a mask lacks its image, a file is there twice, both releases
            are there, a scan or mask is unusable (see `ccdcseg.datasets.volumes`), a mask's values are neither
            release's, or the id is taken. Nothing is left.
    """
    scans = _scans(source, sequence)
    labelled = [scan for scan in scans if scan.mask is not None]
    if not labelled:
        raise UserError(
            f"{source} holds no {sequence} image with a mask.",
            "Give the unpacked release, with patient1_LGE.nii.gz and patient1_LGE_manual.nii.gz, or subject1_DE "
            "and subject1_DE_manual, in it or its folders.",
        )
    target = free_folder(raw_root, dataset_id, f"{_RELEASE.name}_{sequence.name}")
    unlabelled = [scan for scan in scans if scan.mask is None]
    return write_dataset(_RELEASE, labelled, _convert, target, workers, progress, unlabelled)


def _scans(source: Path, sequence: CardiacSequence) -> list[_Scan]:
    images, masks = _files(source, sequence, mask=False), _files(source, sequence, mask=True)
    alone = [masks[patient] for patient in masks if patient not in images]
    if alone:
        raise UserError(f"{alone[0]} is the mask of an image that is not there.", "Restore the image.")
    if len({patient.rstrip("0123456789") for patient in images}) > 1:
        raise UserError(
            f"{source} holds both releases, patientN and subjectN, which are the same people.",
            "Give one of them.",
        )
    return [
        _Scan(Case(f"{patient}_{sequence}", patient, "", sequence.value), images[patient], masks.get(patient))
        for patient in sorted(images)
    ]


def _files(source: Path, sequence: CardiacSequence, mask: bool) -> dict[str, Path]:
    """The images or the masks of a sequence by patient, wherever they lie and whatever capitals they have."""
    found: dict[str, Path] = {}
    for path in walk(source).files:
        match, copy = (kind.fullmatch(path.name.lower()) for kind in (_FILE, _COPY))
        if copy and copy["suffix"] in _SUFFIXES[sequence]:
            raise UserError(
                f"{path} is named nearly as a file of the release.",
                "Give it its name there, or move it away.",
            )
        if match is None or match["suffix"] not in _SUFFIXES[sequence] or bool(match["mask"]) != mask:
            continue
        patient = f"{match['release']}{int(match['number']):02d}"
        if patient in found:
            raise UserError(f"{path} and {found[patient]} are the same image.", "Remove one of them.")
        found[patient] = path
    return found


def _convert(folder: Path, scan: _Scan) -> Notes:
    image = read_image(scan.image)
    if scan.mask is None:
        return write_unlabelled(folder, scan.case.case, [image])
    return write_pair(folder, scan.case.case, [image], _read_mask(scan.mask))


def _read_mask(path: Path) -> Volume:
    stored = read_image(path)
    return Volume(path, _labels(stored), stored.spacing_mm, stored.origin_mm, stored.direction)


def _labels(mask: Volume) -> NDArray[np.int16]:
    found = set(np.unique(mask.array).tolist()) - {0}
    for values in (LABELS, CHALLENGE_VALUES):
        if found <= set(values.values()):
            labels = np.zeros(mask.array.shape, np.int16)
            for name, value in values.items():
                labels[mask.array == value] = LABELS[name]
            return labels
    known = " or ".join(
        ", ".join(f"{value} ({name})" for name, value in values.items())
        for values in (LABELS, CHALLENGE_VALUES)
    )
    shown = ", ".join(map(exactly, sorted(found)[:5])) + (", ..." if len(found) > 5 else "")
    raise UserError(
        f"{mask.path} holds the values {shown} besides the background 0, not {known} alone.",
        "Restore it from the official release.",
    )
