import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccdcseg.checks.contents import read_contents
from ccdcseg.report import thumbnails as drawing
from ccdcseg.report.pictures import CLASS_COLOURS, class_colour
from ccdcseg.report.thumbnails import (
    Thumbnail,
    draw_case,
    jpeg,
    outlined_pixels,
    thumbnails,
)

LABELS = {"RV": 1, "LV": 2}


def colour_of(value: int) -> np.ndarray:
    return np.array([int(class_colour(value)[index : index + 2], 16) for index in (1, 3, 5)])


def places_of(rgb: np.ndarray, value: int) -> np.ndarray:
    return (np.abs(rgb.astype(int) - colour_of(value)) <= 1).all(axis=-1)


def decoded(uri: str) -> Image.Image:
    prefix = "data:image/jpeg;base64,"
    assert uri.startswith(prefix)
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(prefix))))


def test_twenty_classes_have_colours_of_their_own() -> None:
    assert [class_colour(value) for value in range(1, 21)] == list(CLASS_COLOURS)
    assert len(set(CLASS_COLOURS)) == 20
    assert class_colour(21) == class_colour(1)


@pytest.mark.parametrize(
    ("shape", "aspect", "size"),
    [
        ((40, 40), 1.0, (320, 320)),
        ((40, 80), 1.0, (160, 320)),
        ((40, 40), 2.0, (320, 160)),
        ((9, 30), 5, (320, 213)),
    ],
)
def test_proportions(shape: tuple[int, int], aspect: float, size: tuple[int, int]) -> None:
    assert outlined_pixels(np.zeros(shape), np.zeros(shape, int), aspect).shape == (*size, 3)


def test_an_outline_runs_around_its_class() -> None:
    labels = np.zeros((32, 32), int)
    labels[8:16, 8:24], labels[20:28, 4:12] = 1, 2
    rgb = outlined_pixels(np.zeros((32, 32)), labels, 1.0)
    first = np.argwhere(places_of(rgb, 1))
    assert first.min(axis=0) == pytest.approx([80, 80], abs=2)
    assert first.max(axis=0) == pytest.approx([160, 240], abs=2)
    assert not places_of(rgb, 1)[90:150, 90:230].any()
    assert np.argwhere(places_of(rgb, 2)).min(axis=0) == pytest.approx([200, 40], abs=2)
    assert not places_of(rgb, 3).any()


def test_an_outline_at_the_border_is_closed() -> None:
    rgb = outlined_pixels(np.zeros((32, 32)), np.ones((32, 32), int), 1.0)
    drawn = places_of(rgb, 1)
    assert drawn[0].all()
    assert drawn[:, -1].all()
    assert drawn.sum() == 4 * 319


def test_what_is_smaller_than_a_pixel_is_drawn() -> None:
    labels = np.zeros((1280, 1280), int)
    labels[641, 333] = 1
    assert places_of(outlined_pixels(np.zeros((1280, 1280)), labels, 1.0), 1).any()


def test_greys_lie_between_the_percentiles() -> None:
    grey = np.tile(np.linspace(-1000, 1000, 320), (320, 1))
    grey[0, 0] = 1e6
    rgb = outlined_pixels(grey, np.zeros((320, 320), int), 1.0)
    assert rgb.min() == 0
    assert rgb.max() == 255
    assert rgb[100, 160].tolist() == pytest.approx([128] * 3, abs=2)
    assert outlined_pixels(np.full((8, 8), 7.0), np.zeros((8, 8), int), 1.0).max() == 0


def test_pictures_are_small() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64))
    assert len(base64.b64decode(jpeg(outlined_pixels(noise, noise > 200, 1.0)).split(",")[1])) < 60_000


def test_noise_in_colour_is_drawn() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), np.uint8)
    assert decoded(jpeg(noise)).size == (320, 320)


def test_the_slice_with_most_foreground(raw_folder: Path, change_volume: Callable[..., None]) -> None:
    def paint(array: np.ndarray) -> None:
        array[...] = 0
        array[3, 5:9, 5:9] = 2

    change_volume(raw_folder / "labelsTr" / "p1_ED.nii.gz", paint)
    drawn = draw_case(read_contents(raw_folder).files["p1_ED"], LABELS, None)
    assert (drawn.slice_number, drawn.number_of_slices, drawn.problem) == (4, 4, "")
    assert decoded(drawn.uri).size == (320, round(320 * 20 * 1.5 / (24 * 1.4)))


def test_slices_lie_across_the_largest_spacing(raw_folder: Path, change_volume: Callable[..., None]) -> None:
    for name in ("imagesTr/p1_ED_0000", "labelsTr/p1_ED"):
        change_volume(raw_folder / f"{name}.nii.gz", spacing_mm=(1.0, 2.0, 9.0))
    drawn = draw_case(read_contents(raw_folder).files["p1_ED"], LABELS, None)
    assert drawn.number_of_slices == 24
    assert decoded(drawn.uri).size == (320, 32)


def test_ignored_voxels_are_no_foreground(raw_folder: Path, change_volume: Callable[..., None]) -> None:
    def paint(array: np.ndarray) -> None:
        array[0] = 3

    change_volume(raw_folder / "labelsTr" / "p1_ED.nii.gz", paint)
    drawn = draw_case(read_contents(raw_folder).files["p1_ED"], LABELS, 3)
    assert (drawn.slice_number, drawn.problem) == (2, "")


def test_without_a_usable_mask_the_middle_slice_is_shown(
    raw_folder: Path, change_volume: Callable[..., None]
) -> None:
    change_volume(raw_folder / "labelsTr" / "p1_ED.nii.gz", lambda array: array[:, :-1])
    change_volume(raw_folder / "labelsTr" / "p1_ES.nii.gz", lambda array: array * 4)
    (raw_folder / "labelsTr" / "p2_ED.nii.gz").unlink()
    files = read_contents(raw_folder).files
    for case, words in (("p1_ED", "different shapes"), ("p1_ES", "no known label"), ("p2_ED", "no mask")):
        drawn = draw_case(files[case], LABELS, None)
        assert (drawn.slice_number, decoded(drawn.uri).size[0]) == (3, 320)
        assert words in drawn.problem


def test_without_a_usable_image_there_is_no_picture(raw_folder: Path) -> None:
    (raw_folder / "imagesTr" / "p1_ED_0000.nii.gz").write_bytes(b"no scan")
    (raw_folder / "imagesTr" / "p1_ES_0000.nii.gz").unlink()
    files = read_contents(raw_folder).files
    for case, words in (("p1_ED", "p1_ED_0000.nii.gz"), ("p1_ES", "no image")):
        drawn = draw_case(files[case], LABELS, None)
        assert drawn.uri == ""
        assert words in drawn.problem


def test_pictures_are_drawn_once(
    raw_folder: Path,
    tmp_path: Path,
    change_volume: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run() -> tuple[dict[str, Thumbnail], list[int]]:
        seen: list[int] = []
        contents, cases = read_contents(raw_folder), ["p1_ED", "p2_ED", "p3_ED"]
        return thumbnails(contents, cases, tmp_path / "cache", 1, lambda _, total: seen.append(total)), seen

    first, seen = run()
    assert seen == [3] * 3
    assert run() == (first, [])
    (tmp_path / "cache" / "p1_ED.json").write_text("{")
    change_volume(raw_folder / "labelsTr" / "p3_ED.nii.gz", lambda array: array * 0)
    again, seen = run()
    assert seen == [2, 2]
    assert again["p1_ED"] == first["p1_ED"]
    assert again["p3_ED"] != first["p3_ED"]
    monkeypatch.setattr(drawing, "CLASS_COLOURS", ("#ffffff",))
    assert run()[1] == [3] * 3
