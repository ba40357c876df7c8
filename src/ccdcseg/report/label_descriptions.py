"""The classes of a data set for ITK-SNAP, so that annotators draw them with the right values."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.colors import to_rgb

from ccdcseg.files import write_text
from ccdcseg.report.pictures import class_colour
from ccdcseg.texts import one_line

LABEL_HEADER = """\
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
    0     0    0    0        0  0  0    "Clear Label"
"""
"""How such a file of ours begins."""


def write_label_descriptions(path: Path, labels: Mapping[str, int]) -> None:
    """Write classes as ITK-SNAP imports them (Segmentation, Import Label Descriptions), in our pages' colours.

    Args:
        path: the file, replaced if it exists.
        labels: value of each class by name.
    """
    rows = (_row(name, value) for name, value in labels.items())
    write_text(path, LABEL_HEADER + "".join(rows))


def _row(name: str, value: int) -> str:
    red, green, blue = (round(255 * part) for part in to_rgb(class_colour(value)))
    plain = one_line(name).replace('"', "'")
    return f'{value:5} {red:5} {green:4} {blue:4}        1  1  1    "{plain}"\n'
