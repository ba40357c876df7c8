import re
from pathlib import Path

from ccdcseg.report.label_descriptions import write_label_descriptions
from ccdcseg.report.pictures import class_colour

ROW = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([01])\s+([01])\s+([01])\s+"([^"\n]*)"')


def test_rows_of_itk_snap(tmp_path: Path) -> None:
    write_label_descriptions(tmp_path / "a.label", {"RV": 1, 'left "ventricle"\n': 12})
    lines = (tmp_path / "a.label").read_text().splitlines()
    rows = [ROW.fullmatch(line) for line in lines if not line.startswith("#")]
    assert [(row[1], row[8]) for row in rows if row] == [
        ("0", "Clear Label"),
        ("1", "RV"),
        ("12", "left 'ventricle'"),
    ]
    assert rows[1] is not None
    colour = "#" + "".join(f"{int(rows[1][place]):02x}" for place in (2, 3, 4))
    assert colour.lower() == class_colour(1).lower()
