"""Fetch NiiVue, the slice viewer of the report page, when the package is built.

The release is pinned and its checksum verified. Without npm or a network the package is built without it, and pages
have static slices alone.
"""

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "@niivue/niivue@0.69.0"  # BSD-2-Clause
SHA512 = "YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA=="
MEMBER = "package/dist/niivue.umd.js"
TARGET = Path("src/ccdcseg/report/vendor/niivue.umd.js")


class FetchViewer(BuildHookInterface[Any]):
    """Puts the script where the package looks for it, unless it lies there already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before anything is packed."""
        del version, build_data
        target = Path(self.root) / TARGET
        if target.exists():
            return
        try:
            script = fetched()
        except (OSError, subprocess.SubprocessError, tarfile.TarError, KeyError) as error:
            print(
                f"NiiVue could not be fetched ({error}): report pages will have no slice viewer.",
                file=sys.stderr,
            )
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        part.write_bytes(script)
        part.replace(target)


def fetched() -> bytes:
    """The script out of the pinned release.

    Raises:
        OSError: there is no npm, or the release's checksum is wrong.
        subprocess.SubprocessError: npm failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, timeout=120
        )
        archive = next(Path(folder).glob("*.tgz"))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != SHA512:
            raise OSError(f"its checksum is {digest}")
        with tarfile.open(archive) as content:
            member = content.extractfile(MEMBER)
            if member is None:
                raise OSError(f"{MEMBER} is no file")
            return member.read()
