"""The one error that a user's mistake raises, and what the operating system refuses as such a one."""

import errno
import os
from pathlib import Path

from ccdcseg.texts import one_line

_SYSTEM = {
    errno.ENOSPC: ("The disk{of} is full.", "Free some space, then run the same command again."),
    errno.EDQUOT: ("The disk{of} is full: your share of it is used up.", "Free some space, then run again."),
    errno.EROFS: ("{path} lies on a read-only file system.", "Choose a folder that can be written to."),
    errno.EACCES: (
        "{path} is forbidden to this user (Permission denied).",
        "Change its rights or those of its folder, or choose another place.",
    ),
    errno.ENAMETOOLONG: (
        "{path} has a name that is too long for its file system.",
        "Give it, or the patient it is named after, a shorter one.",
    ),
    errno.EMFILE: (
        "Too many files are open at once for the limit of this user{of}.",
        "Raise it (ulimit -n 4096), or give fewer --processes.",
    ),
    errno.EFBIG: ("{path} grew beyond the limit for a file.", "Raise it (ulimit -f unlimited)."),
    errno.ENOTDIR: ("{path} lies below a file, which is no folder.", "Choose another place."),
    errno.EISDIR: ("{path} is a folder where a file belongs.", "Remove it, or choose another place."),
    errno.ENOENT: ("{path} does not exist.", "Check the path, and where links in it lead."),
    errno.EIO: ("{path} cannot be read or written: the disk reports an error.", "Check the disk."),
}
_SYSTEM[errno.EPERM] = _SYSTEM[errno.EACCES]
_SYSTEM[errno.ENFILE] = _SYSTEM[errno.EMFILE]


class UserError(Exception):
    """Something the user can mend: bad input, a wrong setting, a full disk.

    The command line prints it as one line and exits with code 2; no traceback.

    Args:
        problem: what is wrong, naming the file or the setting.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = one_line(problem)
        self.remedy = one_line(remedy)
        super().__init__(f"{self.problem} {self.remedy}")

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        """Survive the way out of a worker process."""
        return UserError, (self.problem, self.remedy)


def system_error(error: OSError, path: str | os.PathLike[str] | None = None) -> UserError:
    """What the operating system refused, in our words.

    Args:
        error: with its number.
        path: the file that the message names; None: the one that ``error`` names, if any.
    """
    named = error.filename if path is None else path
    known = isinstance(named, str | bytes | os.PathLike) and named
    name = str(Path(os.fsdecode(named)).absolute()) if known else ""
    problem, remedy = _SYSTEM.get(
        error.errno or 0, (f"{{path}} cannot be used ({error.strerror}).", "Check the file and its rights.")
    )
    return UserError(problem.format(path=name or "A file", of=f" of {name}" if name else ""), remedy)
