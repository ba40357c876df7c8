"""A corpus of damaged files: each is refused in one line that says what is wrong, and nothing is left behind.

Every entry damages one file of a small healthy source, which is then converted as a user would.
`test_the_corpus_is_whole` keeps it from shrinking, and `test_healthy_sources_are_taken` shows that nothing but the
damage is refused.
"""

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_fields import set_fields
from PIL import Image

from ccdcseg.datasets.acdc import prepare_acdc
from ccdcseg.datasets.cases import Case, read_cases, read_labels, write_cases
from ccdcseg.datasets.chaos import prepare_chaos_mr
from ccdcseg.datasets.mscmrseg import prepare_mscmrseg
from ccdcseg.datasets.own import Layout, OwnData, prepare_own
from ccdcseg.datasets.sequences import ChaosSequence
from ccdcseg.datasets.splits import SPLITS_FILE, find_fold, split_dataset
from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.errors import UserError

SHAPE, SPACING = (4, 6, 7), (7.7, 1.5, 1.25)
ORIGIN = (-100.0, -80.0, 30.0)
IMAGE = np.random.default_rng(0).integers(0, 4096, SHAPE).astype(np.uint16)
MASK = np.zeros(SHAPE, np.uint8)
MASK[:, 1:3, 1:3], MASK[1:, 3:5, 4:6] = 1, 2
DATA = OwnData("Own", {"liver": 1, "tumour": 2}, ["MRI"])

Damage = Callable[[Path], object]


@dataclass(frozen=True)
class Entry:
    """One damaged file: what it belongs to, which file it is, what is done to it, and the expected words."""

    kind: str
    name: str
    damage: Damage
    message: str


def header(**fields: Any) -> Damage:
    """Set fields of a gzipped NIfTI header, unchecked."""

    def damage(path: Path) -> None:
        content = gzip.decompress(path.read_bytes())
        changed = nibabel.Nifti1Header(content[:348], check=False)
        for name, value in fields.items():
            changed[name] = value
        path.write_bytes(gzip.compress(changed.binaryblock + content[348:]))

    return damage


def voxels(
    change: Callable[[np.ndarray], np.ndarray], spacing: tuple[float, ...] = SPACING, **place: Any
) -> Damage:
    """Write other voxels, or the same in another place."""

    def damage(path: Path) -> None:
        array = MASK if "mask" in path.name else IMAGE.astype(np.int16)
        write_volume(path, Volume(path, change(array), spacing, place.get("origin", ORIGIN)))  # type: ignore[arg-type]

    return damage


def with_nan(array: np.ndarray) -> np.ndarray:
    return np.where(array > 4000, np.nan, array).astype(np.float32)


def renamed(name: str) -> Damage:
    return lambda path: path.rename(path.with_name(name))


def content(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def unzipped(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


def fields(**values: Any) -> Damage:
    return lambda path: set_fields(path, **values)


def syntax(uid: str) -> Damage:
    def damage(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 20])
        dataset.save_as(path)

    return damage


def doubled(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.save_as(path.with_name("copy.dcm"))


def painted(mode: str, size: tuple[int, int] = (7, 6), value: Any = 0) -> Damage:
    return lambda path: Image.new(mode, size, value).save(path)


def huge_png(path: Path) -> None:
    stored = path.read_bytes()
    start = b"IHDR" + struct.pack(">II", 60000, 60000) + stored[24:29]
    path.write_bytes(stored[:12] + start + struct.pack(">I", zlib.crc32(start)) + stored[33:])


def text(value: str | bytes) -> Damage:
    return lambda path: path.write_bytes(value if isinstance(value, bytes) else value.encode())


def replaced(old: str, new: str) -> Damage:
    return lambda path: path.write_text(path.read_text().replace(old, new))


def entry_of_json(change: Callable[[Any], Any]) -> Damage:
    return lambda path: path.write_text(json.dumps(change(json.loads(path.read_text()))))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


NIFTI = [
    ("image.nii.gz", Path.unlink, r"Nothing below .* fits the pattern"),
    ("image.nii.gz", folder_instead, r"Nothing below .* fits the pattern"),
    ("image.nii.gz", content(lambda c: b""), r"image\.nii\.gz is empty\. Copy or download it again"),
    ("image.nii.gz", content(lambda c: c[:10]), r"image\.nii\.gz is truncated or damaged"),
    ("image.nii.gz", content(lambda c: c[:-1]), r"image\.nii\.gz is truncated or damaged"),
    ("image.nii.gz", content(lambda c: c[:-8] + bytes(8)), r"image\.nii\.gz is truncated or damaged"),
    ("image.nii.gz", content(lambda c: c + b"more"), r"image\.nii\.gz is truncated or damaged"),
    ("image.nii.gz", content(lambda c: gzip.compress(b"hello")), r"image\.nii\.gz is no NIfTI file"),
    ("image.nii.gz", unzipped(lambda c: c[:-9]), r"is cut short or its header lies: 688 bytes declared, 679 there"),
    ("image.nii.gz", unzipped(lambda c: c + bytes(2**22)), r"goes on for more than 1 MiB after the 688 bytes"),
    ("image.nii.gz", unzipped(lambda c: c[:344] + b"n+2\0" + c[348:]), r"is no NIfTI file"),
    ("image.nii.gz", unzipped(lambda c: b"\x1c\x02\0\0" + c[4:]), r"is no NIfTI file"),
    ("image.nii.gz", unzipped(lambda c: c[:40] + c[40:56][::-1] + c[56:]), r"image\.nii\.gz"),
    ("image.nii.gz", header(dim=[3, 30000, 30000, 20, 1, 1, 1, 1]), r"36000000352 bytes; 4294967296 is"),
    ("image.nii.gz", header(dim=[3, 7, 6, 400, 1, 1, 1, 1]), r"is cut short or its header lies"),
    ("image.nii.gz", header(dim=[4, 7, 6, 2, 2, 1, 1, 1]), r"not 3-D: its header says 4 dimensions, 7 x 6 x 2 x 2"),
    ("image.nii.gz", header(dim=[3, 7, -6, 4, 1, 1, 1, 1]), r"is not 3-D"),
    ("image.nii.gz", header(dim=[0, 7, 6, 4, 1, 1, 1, 1]), r"is not 3-D: its header says 0 dimensions"),
    ("image.nii.gz", header(dim=[9, 7, 6, 4, 1, 1, 1, 1]), r"is no NIfTI file"),
    ("image.nii.gz", header(dim=[3, 6, 7, 4, 1, 1, 1, 1]), r"mask\.nii\.gz has another shape"),
    ("image.nii.gz", header(pixdim=[1, 0, 1.5, 7.7, 0, 0, 0, 0]), r"has the spacing .*pixdim"),
    ("image.nii.gz", header(pixdim=[1, 1.25, -1.5, 7.7, 0, 0, 0, 0]), r"has the spacing .*pixdim"),
    ("image.nii.gz", header(pixdim=[1, 1.25, np.nan, 7.7, 0, 0, 0, 0]), r"has the spacing .*pixdim"),
    ("image.nii.gz", header(pixdim=[1, 1.25, 1.5, np.inf, 0, 0, 0, 0]), r"has the spacing .*pixdim"),
    ("image.nii.gz", header(pixdim=[1, 1e-9, 1.5, 7.7, 0, 0, 0, 0]), r"has the spacing .*pixdim"),
    ("image.nii.gz", header(srow_x=[0, 0, 0, 0]), r"has a singular or non-finite affine"),
    ("image.nii.gz", header(srow_z=[0, 0, np.nan, 0]), r"has a singular or non-finite affine"),
    ("image.nii.gz", header(srow_x=[1.25, 0.9, 0, 0]), r"image\.nii\.gz is sheared: .*Resample it"),
    ("image.nii.gz", header(qform_code=1, quatern_b=2), r"has a singular or non-finite affine"),
    ("image.nii.gz", header(datatype=32), r"holds no plain numbers \(NIfTI data type 32\)"),
    ("image.nii.gz", header(datatype=128), r"holds no plain numbers \(NIfTI data type 128\)"),
    ("image.nii.gz", header(datatype=77), r"holds no plain numbers \(NIfTI data type 77\)"),
    ("image.nii.gz", header(datatype=64), r"is cut short or its header lies"),
    ("image.nii.gz", header(vox_offset=1e9), r"is cut short or its header lies"),
    ("image.nii.gz", header(vox_offset=-5), r"has its voxels begin at byte -5"),
    ("image.nii.gz", header(vox_offset=np.nan), r"has its voxels begin at byte nan"),
    ("image.nii.gz", header(scl_slope=np.inf), r"scales its values by scl_slope inf"),
    ("image.nii.gz", voxels(with_nan), r"holds \d+ voxels that are"),
    ("mask.nii.gz", voxels(lambda a: a[:, :-1]), r"mask\.nii\.gz has another shape"),
    ("mask.nii.gz", voxels(lambda a: a, (7.7, 1.5, 1.3)), r"mask\.nii\.gz has another geometry"),
    ("mask.nii.gz", voxels(lambda a: a, origin=(-100.0, -70.0, 30.0)), r"mask\.nii\.gz has another geometry"),
    ("mask.nii.gz", voxels(lambda a: 0 * a), r"mask\.nii\.gz is empty"),
    ("mask.nii.gz", voxels(lambda a: 3 * a), r"mask\.nii\.gz holds 3, 6, no known label"),
    ("mask.nii.gz", voxels(lambda a: (a / 2).astype(np.float32)), r"mask\.nii\.gz holds 0\.5, no known label"),
    ("mask.nii.gz", voxels(lambda a: -a.astype(np.int16)), r"mask\.nii\.gz holds -2, -1, no known label"),
    ("mask.nii.gz", content(lambda c: c[:-20]), r"mask\.nii\.gz is truncated or damaged"),
]  # fmt: skip
DICOM = [
    ("00002.dcm", Path.unlink, r"neighbours 15\.4 mm apart.*one is missing"),
    ("00002.dcm", doubled, r"lies where .* lies .*: a slice is doubled"),
    ("00002.dcm", content(lambda c: b""), r"00002\.dcm is no DICOM file"),
    ("00002.dcm", content(lambda c: c[:200]), r"00002\.dcm "),
    ("00002.dcm", content(lambda c: c[:-30]), r"00002\.dcm is damaged or cut short|cut short or its header"),
    ("00002.dcm", text("no DICOM at all" * 20), r"00002\.dcm is no DICOM file"),
    ("00002.dcm", fields(ImagePositionPatient=None), r"no usable ImagePositionPatient"),
    ("00002.dcm", fields(ImagePositionPatient=["0", "0"]), r"no usable ImagePositionPatient"),
    ("00002.dcm", fields(ImageOrientationPatient=None), r"no usable ImageOrientationPatient"),
    ("00002.dcm", fields(ImageOrientationPatient=["1", "0", "0", "1", "0", "0"]), r"no pair of perpendicular"),
    ("00002.dcm", fields(ImageOrientationPatient=["0", "1", "0", "0", "0", "1"]), r"another orientation than"),
    ("00002.dcm", fields(PatientID="somebody else"), r"00002\.dcm is of another patient"),
    ("00002.dcm", fields(PixelSpacing=None), r"no usable PixelSpacing"),
    ("00002.dcm", fields(PixelSpacing=["0", "1.25"]), r"of the spacing 0, 1\.25 mm"),
    ("00002.dcm", fields(PixelSpacing=["1.5", "1.3"]), r"another pixel spacing than"),
    ("00002.dcm", fields(Rows=5), r"another size in pixels than"),
    ("00002.dcm", fields(Rows=30000, Columns=30000), r"cut short or its header lies|another size"),
    ("00002.dcm", fields(Columns=0), r"00002\.dcm has 6 x 0 pixels"),
    ("00002.dcm", fields(PixelData=None), r"00002\.dcm is damaged or cut short"),
    ("00002.dcm", fields(RescaleSlope="0", RescaleIntercept="0"), r"has a RescaleSlope or .*, the other none"),
    ("00002.dcm", fields(NumberOfFrames="3"), r"is a multi-frame file, not one slice"),
    ("00002.dcm", fields(SamplesPerPixel=3), r"is no grey slice \(3 values a pixel"),
    ("00002.dcm", syntax("1.2.840.10008.1.2.4.100"), r"is compressed \(MPEG2.*Decompress it"),
    ("00003.dcm", fields(ImagePositionPatient=["-90", "-80", "37.7"]), r"is shifted sideways by 10 mm"),
    ("mask.nii.gz", content(lambda c: c[:-20]), r"mask\.nii\.gz is truncated or damaged"),
]  # fmt: skip
PNG = [
    ("00002.png", Path.unlink, r"holds 4 slices, .*3 masks"),
    ("00002.png", content(lambda c: c[:-40]), r"00002\.png is damaged or no PNG file"),
    ("00002.png", content(lambda c: b""), r"00002\.png is damaged or no PNG file"),
    ("00002.png", painted("L", value=100), r"00002\.png holds the value 100, which is no organ's"),
    ("00002.png", painted("L", (6, 7)), r"00002\.png has 7 x 6 pixels, its slice 6 x 7"),
    ("00002.png", painted("RGB"), r"is no grey mask of 1 or 8 bits \(RGB\)"),
    ("00002.png", painted("P"), r"is no grey mask of 1 or 8 bits \(P\)"),
    ("00002.png", painted("I;16"), r"is no grey mask of 1 or 8 bits \(I;16\)"),
    ("00002.png", huge_png, r"declares absurdly many pixels"),
    ("00002.png", lambda path: Image.new("L", (7, 6)).save(path, format="BMP"), r"damaged or no PNG file"),
]  # fmt: skip
ACDC = [
    ("patient002/Info.cfg", Path.unlink, r"Info\.cfg does not exist"),
    ("patient002/Info.cfg", text("ED: 1\nES: 12\n"), r"Info\.cfg lacks Group"),
    ("patient002/Info.cfg", replaced("ES: 12", "ES: twelve"), r"gives the ES frame as 'twelve'"),
    ("patient002/Info.cfg", replaced("ES: 12", "ES: 01"), r"names the same frame, 1, as ED and ES"),
    ("patient002/Info.cfg", replaced("ES: 12", "ES: 13"), r"lacks a file of its ES frame"),
    ("patient002/Info.cfg", text(b"\xff\xfe\x00\xd8"), r"Info\.cfg is no text file"),
    ("patient002_frame01_gt.nii.gz", Path.unlink, r"lacks a file of its ED frame"),
]  # fmt: skip
MSCMRSEG = [
    ("patient2_LGE.nii.gz", Path.unlink, r"patient2_LGE_manual\.nii\.gz is the mask of an image that is not there"),
    ("patient2_LGE.nii.gz", renamed("subject2_DE.nii.gz"), r"mask of an image|both releases"),
    ("patient2_LGE_manual.nii.gz", header(scl_slope=2, scl_inter=0), r"holds the values .*not"),
]  # fmt: skip
FOLDER = [
    ("cases.csv", Path.unlink, r"cases\.csv does not exist"),
    ("cases.csv", text("case;patient\n"), r"cases\.csv has the columns"),
    ("cases.csv", replaced("c1,", "../c1,"), r"cases\.csv, line 2"),
    ("cases.csv", replaced("c2,", "c1,"), r"cases\.csv lists c1 twice"),
    ("cases.csv", text(b"\xff\xfe\x00\xd8"), r"cases\.csv is no CSV table"),
    ("dataset.json", Path.unlink, r"dataset\.json does not exist"),
    ("dataset.json", text("{"), r"dataset\.json is not valid JSON"),
    ("dataset.json", text("[" * 100_000), r"dataset\.json is not valid JSON"),
    ("dataset.json", entry_of_json(lambda d: []), r'dataset\.json has no "labels"|has no'),
    ("dataset.json", entry_of_json(lambda d: d | {"labels": {"a": [1, 2]}}), r"declares the region a"),
    ("dataset.json", entry_of_json(lambda d: d | {"labels": {"a": 1.5}}), r"gives a the label 1\.5"),
    (SPLITS_FILE, text("[{}]"), r"was not made by ccdcseg"),
    (SPLITS_FILE, text("nothing"), r"is not valid JSON"),
    (SPLITS_FILE, replaced('"p1"', '"p9"'), r"was not made by ccdcseg, or was changed"),
]  # fmt: skip
CORPUS = [
    Entry(kind, *one)
    for kind, entries in (
        ("nifti", NIFTI),
        ("dicom", DICOM),
        ("png", PNG),
        ("acdc", ACDC),
        ("mscmrseg", MSCMRSEG),
        ("folder", FOLDER),
    )
    for one in entries
]


@pytest.fixture
def make_source(
    tmp_path: Path,
    write_slices: Callable[..., list[Path]],
    write_masks: Callable[..., list[Path]],
    write_patient: Callable[..., Path],
) -> Callable[[str], Path]:
    """A healthy source of a kind, small enough to be made a hundred times."""

    def volume(path: Path, array: np.ndarray) -> None:
        write_volume(path, Volume(path, array, SPACING, ORIGIN))  # type: ignore[arg-type]

    def make(kind: str) -> Path:
        root = tmp_path / "source"
        if kind == "nifti":
            volume(root / "anna" / "image.nii.gz", IMAGE.astype(np.int16))
            volume(root / "anna" / "mask.nii.gz", MASK)
        elif kind == "dicom":
            write_slices(root / "anna" / "T2", IMAGE)
            volume(root / "anna" / "mask.nii.gz", MASK)
        elif kind == "png":
            write_slices(root / "MR" / "1" / "T2SPIR" / "DICOM_anon", IMAGE)
            write_masks(root / "MR" / "1" / "T2SPIR" / "Ground", MASK)
        elif kind == "acdc":
            for number in (1, 2):
                write_patient(root / "training", number)
        elif kind == "mscmrseg":
            for number in (1, 2):
                volume(root / f"patient{number}_LGE.nii.gz", IMAGE.astype(np.int16))
                volume(root / f"patient{number}_LGE_manual.nii.gz", np.array([0, 200, 500], np.int16)[MASK])
        else:
            for name in ("c1", "c2", "c3"):
                volume(root / "imagesTr" / f"{name}_0000.nii.gz", IMAGE.astype(np.int16))
                volume(root / "labelsTr" / f"{name}.nii.gz", MASK)
            content = {"labels": DATA.labels, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}}
            (root / "dataset.json").write_text(json.dumps(content))
            write_cases(root, [Case(f"c{n}", f"p{n}", "", "") for n in (1, 2, 3)])
            split_dataset(root, [0.34], 0)
        return root

    return make


def convert(kind: str, source: Path, raw: Path) -> None:
    """What a user does with a source of this kind."""
    layout = Layout(("{patient}/image.nii.gz",), "{patient}/mask.nii.gz")
    if kind == "nifti":
        prepare_own(source, raw, 1, DATA, layout, workers=1)
    elif kind == "dicom":
        folders = Layout(("{patient}/T2",), layout.mask, folders=True)
        prepare_own(source, raw, 1, DATA, folders, workers=1)
    elif kind == "png":
        prepare_chaos_mr(source, raw, 1, [ChaosSequence.T2], workers=1)
    elif kind == "acdc":
        prepare_acdc(source, raw, 1)
    elif kind == "mscmrseg":
        prepare_mscmrseg(source, raw, 1)
    else:
        read_cases(source)
        read_labels(source)
        find_fold(source, 0.34, 0)
        split_dataset(source, [0.34], 1)


@pytest.mark.parametrize("kind", sorted({entry.kind for entry in CORPUS}))
def test_healthy_sources_are_taken(make_source: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    convert(kind, make_source(kind), tmp_path / "raw")


def test_the_corpus_is_whole() -> None:
    assert len(CORPUS) >= 100


@pytest.mark.timeout(20)
@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_damaged_files_are_refused_in_one_line(
    make_source: Callable[[str], Path], tmp_path: Path, entry: Entry
) -> None:
    source = make_source(entry.kind)
    (path,) = [found for found in source.rglob("*") if found.as_posix().endswith(entry.name)]
    entry.damage(path)
    before = sorted(source.rglob("*"))
    with pytest.raises(UserError, match=entry.message) as caught:
        convert(entry.kind, source, tmp_path / "raw")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert not (tmp_path / "raw").exists() or list((tmp_path / "raw").iterdir()) == []
    assert sorted(source.rglob("*")) == before
