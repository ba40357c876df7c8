"""Names that look alike and are not: "ü" is one character on most systems and two on older ones of macOS."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from ccdcseg.datasets.walk import check_link
from ccdcseg.errors import UserError

RENAME = "Rename one of them: convmv -f utf8 -t utf8 --nfc -r --notest FOLDER composes all names in a folder."


def composed(text: str) -> str:
    """The text with composed characters (Unicode's NFC), by which names are compared."""
    return normalize("NFC", text)


def by_case_alone(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Of names those that differ by capitals alone, together; macOS and Windows take them for one."""
    alike: dict[str, set[str]] = defaultdict(set)
    for name in map(composed, names):
        alike[name.casefold()].add(name)
    return [tuple(sorted(some)) for some in alike.values() if len(some) > 1]


def twin(path: Path) -> Path | None:
    """What lies where ``path`` does not, under a name that is composed otherwise; None where nothing does."""
    folder = path.parent if path.parent.is_dir() else twin(path.parent) if path.parent != path else None
    if folder is None:
        return None
    alike = folder / path.name
    if alike.exists():
        return alike
    others = (entry for entry in folder.iterdir() if entry.name != path.name)
    return next((entry for entry in others if composed(entry.name) == composed(path.name)), None)


def missing(path: Path, remedy: str) -> UserError:
    """What to raise where ``path`` does not exist; it names the `twin`, if there is one."""
    check_link(path)
    other = twin(path)
    if other is None:
        return UserError(f"{path} does not exist.", remedy)
    return UserError(
        f"{path} does not exist; {other} does, whose name looks alike but is composed otherwise (Unicode).",
        RENAME,
    )


def there(path: Path) -> Path:
    """``path``, or its `twin` where only that exists."""
    return path if path.exists() else twin(path) or path
