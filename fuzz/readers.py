"""Feed the readers of foreign files with inputs that coverage guides (atheris, libFuzzer).

    python fuzz/readers.py TARGET [libFuzzer's options, such as -runs=100000]

Targets: see TARGETS. A reader may return or raise UserError with one line; anything else, more than a few seconds,
or more memory than -rss_limit_mb allows, is a finding, whose input libFuzzer keeps. `make fuzz` runs all of them.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

# What parses: the rest of pydicom, and modules that are imported already, cost time and guide nowhere.
PARSERS = (
    "pydicom.filereader",
    "pydicom.values",
    "pydicom.encaps",
    "pydicom.pixels",
    "PIL.PngImagePlugin",
    "nibabel",
    "zipfile",
)

with atheris.instrument_imports(include=["ccdcseg", *PARSERS]):
    import zipfile

    import highdicom
    import nibabel
    import numpy as np
    import pydicom
    import pydicom.sr.coding
    from PIL import Image

    from ccdcseg.archives import unpacked
    from ccdcseg.datasets.cases import read_cases, read_labels
    from ccdcseg.datasets.chaos import MR_BANDS, _read_mask
    from ccdcseg.datasets.dicom import read_series, read_voxels
    from ccdcseg.datasets.own import scans_by_table
    from ccdcseg.datasets.segmentations import read_segmentation
    from ccdcseg.datasets.slicer import read_slicer_mask
    from ccdcseg.datasets.splits import find_fold
    from ccdcseg.datasets.volumes import Volume, read_image, read_mask, write_volume
    from ccdcseg.errors import UserError

SHAPE = (3, 4, 5)
LABELS = {"a": 1, "b": 2}
ROOT = Path(tempfile.mkdtemp(prefix="ccdcseg-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


def put(name: str, content: bytes) -> Path:
    path = ROOT / name
    path.write_bytes(content)
    return path


def nifti(data: bytes) -> None:
    volume = read_image(put("scan.nii", data), any_form=True)
    assert volume.array.ndim == 3
    assert np.isfinite(volume.affine).all()


def nifti_gz(data: bytes) -> None:
    read_mask(put("mask.nii.gz", gzip.compress(data, 1)), LABELS)


def dicom(data: bytes) -> None:
    paths = [put(f"slice{number}.dcm", data if number == 1 else SLICES[number]) for number in range(3)]
    read_voxels(read_series(paths))


def segmentation(data: bytes) -> None:
    image = Volume(ROOT, np.zeros(SHAPE), (8.0, 1.5, 1.25))
    read_segmentation(put("seg.dcm", data), LABELS, image)


def nrrd(data: bytes) -> None:
    image = Volume(ROOT, np.zeros(SHAPE), (8.0, 1.5, 1.25))
    mask = read_slicer_mask(put("mask.nrrd", data), LABELS, image)
    assert mask.array.ndim == 3


def png(data: bytes) -> None:
    _read_mask(put("mask.png", data), SHAPE[1:], MR_BANDS)


def archive(data: bytes) -> None:
    with unpacked(put("release.zip", data), ROOT / "raw"):
        pass


def tables(data: bytes) -> None:
    for name, read in (("cases.csv", read_cases), ("dataset.json", read_labels)):
        put(name, data)
        with contextlib.suppress(UserError):
            read(ROOT)
    put("splits_final.json", data)
    with contextlib.suppress(UserError):
        find_fold(ROOT, 0.1, 0)
    scans_by_table(ROOT, put("scans.csv", data))


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (nifti, nifti_gz, dicom, segmentation, nrrd, png, archive, tables)
}


def sliced(number: int) -> bytes:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"1.2.{number}"
    dataset.PixelSpacing, dataset.ImagePositionPatient = ["1.5", "1.25"], ["0", "0", str(8 * number)]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 4, 5, 1
    dataset.SliceThickness = 8.0
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = bytes(40)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


SLICES = [sliced(number) for number in range(3)]


def segmented() -> bytes:
    """A segmentation of the slices."""
    sources = [pydicom.dcmread(io.BytesIO(one)) for one in SLICES]
    empty = (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
    )
    for number, source in enumerate(sources, start=1):
        for keyword in (*empty, "AccessionNumber"):
            setattr(source, keyword, "")
        source.Modality, source.InstanceNumber, source.SeriesNumber = "MR", number, 1
        source.StudyInstanceUID, source.SeriesInstanceUID, source.FrameOfReferenceUID = "1.3", "1.4", "1.5"
        source.file_meta.MediaStorageSOPClassUID = source.SOPClassUID
    code = pydicom.sr.coding.Code("123037004", "SCT", "Anatomical Structure")
    segment = highdicom.seg.SegmentDescription(1, "a", code, code, "MANUAL")
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 1:3, 1:4] = 1
    made = highdicom.seg.Segmentation(
        sources, mask, "BINARY", [segment], "1.6", 2, "1.7", 1, "made up", "made up", "1", "1"
    )
    buffer = io.BytesIO()
    made.save_as(buffer)
    return buffer.getvalue()


def stored_in_nrrd(encoding: str, layers: int, *said: str) -> bytes:
    """A segmentation as 3D Slicer saves it."""
    mask = np.zeros((*SHAPE, layers), np.uint8)
    mask[:, 1:3, 1:4, 0] = 1
    pack = {"raw": bytes, "gzip": gzip.compress, "txt": lambda raw: b" ".join(b"%d" % one for one in raw)}
    more = ("none ", f"{layers} ", "list ") if layers > 1 else ("", "", "")
    lines = [
        *("NRRD0004", "type: uint8", f"dimension: {4 if layers > 1 else 3}", f"encoding: {encoding}"),
        *("space: left-posterior-superior", "space origin: (0,0,0)", "endian: little"),
        *(f"sizes: {more[1]}5 4 3", f"space directions: {more[0]}(1.25,0,0) (0,1.5,0) (0,0,8)"),
        *(f"kinds: {more[2]}domain domain domain", *said),
    ]
    return "\n".join(lines).encode() + b"\n\n" + pack[encoding](mask.tobytes())


def seeds(target: str) -> list[bytes]:
    """Healthy files to start from."""
    path = ROOT / "seed.nii.gz"
    write_volume(path, Volume(path, np.arange(60, dtype=np.int16).reshape(SHAPE) % 3, (8.0, 1.5, 1.25)))
    volume = gzip.decompress(path.read_bytes())
    second = nibabel.Nifti2Image(np.zeros((5, 4), np.float32), np.eye(4)).to_bytes()
    pictures, zipped = io.BytesIO(), io.BytesIO()
    Image.new("L", (5, 4), 63).save(pictures, "PNG")
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive_file:
        archive_file.writestr("patient001/Info.cfg", "ED: 1")
    table = io.StringIO()
    csv.writer(table).writerows([["case", "patient", "group", "phase"], ["a", "b", "", ""]])
    labels = json.dumps({"labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"})
    return {
        "nifti": [volume, second, gzip.compress(volume)],
        "nifti_gz": [volume],
        "dicom": [SLICES[1]],
        "segmentation": [segmented()],
        "nrrd": [
            stored_in_nrrd("gzip", 1, "Segment0_Name:=a", "Segment0_LabelValue:=1", "Segment0_Layer:=0"),
            stored_in_nrrd("raw", 2, "Segment0_Name:=a", "Segment1_Name:=b"),
            stored_in_nrrd("txt", 1, 'space units: "mm" "mm" "mm"'),
        ],
        "png": [pictures.getvalue()],
        "archive": [zipped.getvalue()],
        "tables": [table.getvalue().encode(), labels.encode(), b"image,mask,patient\na,b,c\n"],
    }[target]


def remove_afterwards(folder: Path) -> None:
    """Go on in a child process, since libFuzzer ends its process as it likes; then remove and leave."""
    child = os.fork()
    if not child:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # libFuzzer ends on it
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder)
    sys.exit(os.waitstatus_to_exitcode(status))


def keep(data: bytes) -> None:
    """Write what was found, as libFuzzer does for what it finds itself."""
    prefix = next((one for one in sys.argv if one.startswith("-artifact_prefix=")), "").partition("=")[2]
    Path(f"{prefix}crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)


def main() -> None:
    remove_afterwards(ROOT)
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"Name a target: {', '.join(TARGETS)}.")
    read = TARGETS[sys.argv[1]]
    warnings.simplefilter("ignore")
    corpus = ROOT / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(sys.argv[1])):
        (corpus / str(number)).write_bytes(seed)

    def once(data: bytes) -> None:
        try:
            read(data)
        except UserError as error:
            if "\n" in str(error):
                keep(data)
                raise AssertionError("more than one line") from error
        except Exception:
            keep(data)
            raise

    atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
