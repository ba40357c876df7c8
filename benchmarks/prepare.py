"""How long it takes to convert ACDC, against reading the same files once.

    CCDCSEG_DATA=FOLDER python benchmarks/prepare.py [--json] [--processes 2]

Converting is `ccdcseg prepare acdc` into a temporary folder: every header and voxel checked, masks checked against
images, everything written anew. Reading is SimpleITK alone, one file after the other. Both once, reading first, so
that neither waits for a disk that the other has not touched.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import SimpleITK
from rich.console import Console
from rich.table import Table

from ccdcseg.cores import usable_cores
from ccdcseg.datasets.acdc import prepare_acdc
from ccdcseg.errors import UserError

LIMIT_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON on the last line")
    parser.add_argument("--processes", type=int, default=usable_cores())
    arguments = parser.parse_args()
    if "CCDCSEG_DATA" not in os.environ:
        raise UserError("CCDCSEG_DATA is not set.", "Set it to the folder with acdc/training.")
    source = Path(os.environ["CCDCSEG_DATA"]) / "acdc"
    files = sorted(source.glob("training/patient*/patient*_frame*.nii.gz"))
    read_s = seconds_to_read(files)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        prepare_acdc(source, Path(folder), 27, workers=arguments.processes)
        prepare_s = time.perf_counter() - started
    table = Table("", "seconds", title=f"{len(files)} files, {arguments.processes} processes")
    table.add_row("reading once, one process", f"{read_s:.1f}")
    table.add_row("converting and checking", f"{prepare_s:.1f} (at most {LIMIT_S})")
    table.add_row("ratio", f"{prepare_s / read_s:.2f}")
    Console().print(table)
    if arguments.json:
        print(json.dumps({"seconds": round(prepare_s, 2), "ratio_to_reading": round(prepare_s / read_s, 3)}))


def seconds_to_read(files: list[Path]) -> float:
    started = time.perf_counter()
    for path in files:
        SimpleITK.ReadImage(str(path))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
