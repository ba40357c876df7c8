import itertools
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ccdcseg.measure.metrics import DISTANCES, border, directed_distances, measure

DATA = os.environ.get("CCDCSEG_DATA")


def square(shape=(10, 12), rows=(2, 6), columns=(3, 8)):
    mask = np.zeros(shape, dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def naive_border(mask):
    """Voxels of the mask with a face neighbour outside it, written from the definition."""
    voxels = {tuple(int(i) for i in voxel) for voxel in np.argwhere(mask)}
    steps = [
        tuple(sign if axis == k else 0 for k in range(mask.ndim))
        for axis in range(mask.ndim)
        for sign in (-1, 1)
    ]
    return [
        voxel
        for voxel in voxels
        if any(tuple(map(sum, zip(voxel, step, strict=True))) not in voxels for step in steps)
    ]


def naive_percentile(values, percent):
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = math.floor(position)
    high = math.ceil(position)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def naive_distances(reference, prediction, spacing):
    def place(voxel):
        return [index * step for index, step in zip(voxel, spacing, strict=True)]

    first = [place(voxel) for voxel in naive_border(reference)]
    second = [place(voxel) for voxel in naive_border(prediction)]
    forth = [min(math.dist(p, q) for q in second) for p in first]
    back = [min(math.dist(p, q) for q in first) for p in second]
    return forth, back


def naive_scores(reference, prediction, spacing):
    forth, back = naive_distances(reference, prediction, spacing)
    voxels = [
        value for side in naive_distances(reference, prediction, [1] * reference.ndim) for value in side
    ]
    pooled = forth + back
    return {
        "hd95_pooled_mm": naive_percentile(pooled, 95),
        "hd95_pooled_vox": naive_percentile(voxels, 95),
        "hd95_max_mm": max(naive_percentile(forth, 95), naive_percentile(back, 95)),
        "assd_mm": sum(pooled) / len(pooled),
        "hd_mm": max(pooled),
    }


@st.composite
def mask_pairs(draw):
    """Two non-empty masks of one shape in 2-D or 3-D, with islands, many touching the image's border."""
    shape = draw(
        st.one_of(
            st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
            st.tuples(st.integers(1, 9), st.integers(1, 9)),
        )
    )
    pair = [draw(arrays(bool, shape)) for _ in range(2)]
    for mask in pair:
        mask[tuple(draw(st.integers(0, size - 1)) for size in shape)] = True
    spacing = draw(st.tuples(*[st.floats(0.2, 12)] * len(shape)))
    return *pair, spacing


def flat(reference, prediction, spacing):
    """Two masks and their spacing without axes of length one; a single voxel keeps one."""
    sides = {axis: size for axis, size in enumerate(reference.shape) if size > 1} or {0: 1}
    shape = [*sides.values()]
    return reference.reshape(shape), prediction.reshape(shape), [spacing[axis] for axis in sides]


@given(mask_pairs())
@settings(deadline=None, max_examples=60)
def test_distances_equal_the_definition_written_as_loops(pair):
    scores = measure(*pair)
    for name, value in naive_scores(*flat(*pair)).items():
        assert getattr(scores, name) == pytest.approx(value, rel=1e-9, abs=1e-9), name


@given(mask_pairs())
@settings(deadline=None, max_examples=60)
def test_pooled_distances_equal_medpy_but_for_rounding(pair):
    from medpy.metric.binary import dc, hd, hd95

    scores = measure(*pair)
    reference, prediction, spacing = flat(*pair)
    assert scores.hd95_pooled_mm == pytest.approx(hd95(prediction, reference, spacing), rel=1e-12)
    assert scores.hd95_pooled_vox == pytest.approx(hd95(prediction, reference), rel=1e-12)
    assert scores.hd_mm == pytest.approx(hd(prediction, reference, spacing), rel=1e-12)
    assert scores.dice == pytest.approx(dc(prediction, reference))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI about itself
@given(mask_pairs())
@settings(deadline=None, max_examples=30)
def test_max_hd95_equals_monai(pair):
    import torch
    from monai.metrics import compute_hausdorff_distance

    reference, prediction, spacing = flat(*pair)
    assume(reference.ndim > 1)  # MONAI knows no lines
    monai = compute_hausdorff_distance(
        torch.from_numpy(prediction)[None, None],
        torch.from_numpy(reference)[None, None],
        include_background=True,
        percentile=95,
        spacing=list(spacing),
    )
    assert measure(*pair).hd95_max_mm == pytest.approx(monai.item(), rel=1e-5)


@given(mask_pairs())
@settings(deadline=None, max_examples=30)
def test_scores_are_symmetric_and_scale_with_spacing(pair):
    reference, prediction, spacing = pair
    scores = measure(reference, prediction, spacing)
    swapped = measure(prediction, reference, spacing)
    doubled = measure(reference, prediction, [2 * step for step in spacing])
    assert scores == swapped or all(
        getattr(scores, name) == pytest.approx(getattr(swapped, name)) for name in DISTANCES
    )
    assert doubled.hd95_pooled_mm == pytest.approx(2 * scores.hd95_pooled_mm)
    assert doubled.hd95_pooled_vox == scores.hd95_pooled_vox
    assert 0 <= scores.hd95_pooled_mm <= scores.hd_mm < scores.diagonal_mm + 1e-9


def test_hand_computed_shift_of_a_square():
    # A 4 x 5 square moved by two columns of 1.5 mm: 3 of 5 columns overlap.
    scores = measure(square(), square(columns=(5, 10)), spacing_mm=(5, 1.5))
    assert scores.status == "ok"
    assert scores.dice == pytest.approx(3 / 5)
    assert scores.hd_mm == pytest.approx(3)
    assert scores.hd95_pooled_vox == pytest.approx(2)
    assert scores.diagonal_mm == pytest.approx(math.hypot(10 * 5, 12 * 1.5))


def test_spacing_is_in_the_order_of_the_axes():
    moved = square(rows=(3, 7))
    assert measure(square(), moved, (5, 1)).hd_mm == 5
    assert measure(square().T, moved.T, (1, 5)).hd_mm == 5


@pytest.mark.parametrize("across", [0, 1, 2])
def test_a_slice_of_a_volume_is_measured_as_the_slice(across):
    moved = square(rows=(3, 7))
    spacing_mm = [5.0, 1.0]
    spacing_mm.insert(across, 8.0)
    volume = measure(np.expand_dims(square(), across), np.expand_dims(moved, across), spacing_mm)
    sides_mm = np.multiply(np.expand_dims(moved, across).shape, spacing_mm)
    alone = measure(square(), moved, (5, 1))
    assert alone.assd_mm > 0
    assert volume == replace(alone, diagonal_mm=pytest.approx(np.linalg.norm(sides_mm)))


def test_the_two_definitions_of_hd95_differ_for_one_sided_errors():
    # One far voxel more: it is 1 of the 15 border voxels of the one mask, 1 of 29 in the pool.
    prediction = square()
    prediction[2, 11] = True
    scores = measure(square(), prediction, (1, 1))
    assert scores.hd_mm == 4
    assert scores.hd95_pooled_mm == 0
    assert scores.hd95_max_mm == pytest.approx(4 * 0.3)


def test_identical_masks_score_best():
    scores = measure(square(), square(), (1, 1))
    assert scores.dice == 1
    assert all(getattr(scores, name) == 0 for name in DISTANCES)


@pytest.mark.parametrize(
    ("reference", "prediction", "status", "dice"),
    [
        (square(), ~square() & False, "missed", 0),
        (~square() & False, square(), "spurious", 0),
        (~square() & False, ~square() & False, "absent", None),
    ],
)
def test_empty_masks_have_no_distances(reference, prediction, status, dice):
    scores = measure(reference, prediction, (1, 1))
    assert (scores.status, scores.dice) == (status, dice)
    assert all(getattr(scores, name) is None for name in DISTANCES)
    assert scores.diagonal_mm == pytest.approx(math.hypot(10, 12))


def test_a_mask_at_the_image_border_has_its_surface_there():
    assert border(np.ones((3, 3), dtype=bool)).sum() == 8


@pytest.mark.parametrize("spacing_mm", [(0, 1), (-1, 1), (math.nan, 1), (math.inf, 1), (1,), (1, 1, 1)])
def test_impossible_spacing_is_refused(spacing_mm):
    with pytest.raises(ValueError, match="acing"):
        measure(square(), square(), spacing_mm)


def test_labels_in_place_of_masks_are_refused():
    labels = np.ones((3, 3, 3), np.uint8)
    with pytest.raises(ValueError, match="Masks are boolean, not uint8 and bool"):
        measure(labels, labels > 0, (1, 1, 1))


def test_tensors_are_told_how_to_become_masks():
    import torch

    mask = torch.ones(3, 3, dtype=torch.bool)
    for other in (mask, mask.numpy()):
        with pytest.raises(ValueError, match=r"not torch.bool and .*bool: .* \(of a tensor: \.numpy\(\)\)"):
            measure(mask, other, (1, 1))


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="Shapes"):
        measure(square(), square()[:-1], (1, 1))


@pytest.mark.skipif(DATA is None, reason="CCDCSEG_DATA is not set: no CHAOS scans")
def test_known_answer_of_the_chaos_organisers():
    # DICE 0.978, ASSD 0.734 mm, MSSD 14 mm, as published with the sample. The liver leaves the image at its top;
    # unlike us and medpy, the organisers count no surface there, which only the mean shows.
    folder = Path(DATA) / "chaos_ct_dicom"
    masks = [read_masks(folder / name) for name in ("Ground", "Segmentation")]
    spacing_mm = dicom_spacing_mm(folder / "DICOM_anon")
    scores = measure(*masks, spacing_mm)
    rows, columns = (np.flatnonzero((masks[0] | masks[1]).any(axis=axes)) for axes in ((0, 2), (0, 1)))
    masks = [mask[:, rows[0] - 1 : rows[-1] + 2, columns[0] - 1 : columns[-1] + 2] for mask in masks]
    inner = [border(mask) & ~border_by_image_end(mask) for mask in masks]
    assd_mm = np.concatenate(directed_distances(*inner, spacing_mm)[0]).mean()
    assert scores.dice == pytest.approx(0.978, abs=5e-4)
    assert assd_mm == pytest.approx(0.734, abs=5e-4)
    assert scores.hd_mm == pytest.approx(14, abs=1e-9)
    assert scores.assd_mm == pytest.approx(0.713, abs=5e-4)


def border_by_image_end(mask):
    """Border voxels whose only neighbour outside the mask lies outside the image."""
    return border(mask) & ~border(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1, 1:-1]


def read_masks(folder):
    files = sorted(folder.glob("*.png"))
    return np.stack([SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) > 0 for path in files])


def dicom_spacing_mm(folder):
    headers = []
    for path in sorted(folder.glob("*.dcm")):
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        headers.append(reader)
    positions = sorted(float(header.GetMetaData("0020|0032").split("\\")[2]) for header in headers)
    gaps = [high - low for low, high in itertools.pairwise(positions)]
    assert max(gaps) - min(gaps) < 1e-3
    rows, columns = (float(step) for step in headers[0].GetMetaData("0028|0030").split("\\"))
    return gaps[0], rows, columns
