"""Changing what stands in DICOM files."""

from pathlib import Path

import pydicom


def set_fields(path: Path, **fields: object) -> None:
    """Set or (with None) remove fields of a DICOM file."""
    dataset = pydicom.dcmread(path)
    for keyword, value in fields.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)
