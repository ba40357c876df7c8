"""The one error that a user's mistake raises, and what the operating system refuses as such a one."""

import errno
import os
from pathlib import Path

from ccdcseg.texts import one_line

NO_OPTION = "(nnUNet_def_n_proc=1 where there is no such option)"
"""What stands beside advice on ``--processes``: some commands, and Python, read the variable alone."""
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
        f"Raise it (ulimit -n 4096), or give fewer --processes {NO_OPTION}.",
    ),
    errno.EFBIG: ("{path} grew beyond the limit for a file.", "Raise it (ulimit -f unlimited)."),
    errno.ENOTDIR: ("{path} lies below a file, which is no folder.", "Choose another place."),
    errno.EISDIR: ("{path} is a folder where a file belongs.", "Move it away, or choose another name."),
    errno.ENOENT: ("{path} does not exist.", "Check the path, and where links in it lead."),
    errno.EEXIST: (
        "{path} cannot be made: a file, or a link that leads nowhere, is in its place or above it.",
        "Move it away, or choose another place.",
    ),
    errno.ELOOP: ("{path} lies behind links that lead in a circle.", "Mend the links."),
    errno.EAGAIN: (
        "The system starts no more processes or threads for this user{at}.",
        f"Give --processes 1 {NO_OPTION}, raise the limit (ulimit -u), or end other programs.",
    ),
    errno.ENOMEM: (
        "There is not enough memory{at}.",
        f"Give fewer --processes {NO_OPTION}, or end other programs.",
    ),
    errno.EIO: ("{path} cannot be read or written: the disk reports an error.", "Check the disk."),
}
_SYSTEM[errno.EPERM] = _SYSTEM[errno.EACCES]
_SYSTEM[errno.ENFILE] = _SYSTEM[errno.EMFILE]
_SAID = {"can't start new thread": errno.EAGAIN, "DefaultCPUAllocator": errno.ENOMEM}
"""What Python and PyTorch say where the system gives them no more."""


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

    @property
    def refused(self) -> bool:
        """Whether the operating system refused something: its remedy alone helps, see `system_error`."""
        return isinstance(self.__cause__, OSError)

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        """Survive the way out of a worker process."""
        return UserError, (self.problem, self.remedy)


def system_error(error: OSError, path: str | os.PathLike[str] | None = None) -> UserError:
    """What the operating system refused, in our words.

    Args:
        error: of the system, or of a library that words it itself.
        path: the file that the message names; None: the one that ``error`` names, if any.
    """
    named = error.filename if path is None else path
    known = isinstance(named, str | bytes | os.PathLike) and named
    name = str(Path(os.fsdecode(named)).absolute()) if known else ""
    reason = (error.strerror or str(error)).replace("{", "{{").replace("}", "}}")
    other = (f"{{path}} cannot be used ({reason}).", "Check the file, its rights and its disk.")
    usual = error.errno is not None and (name or reason == os.strerror(error.errno))
    problem, remedy = _SYSTEM.get(error.errno or 0, other) if usual else other
    words = {
        "path": name or "A file",
        "of": f" of {name}" if name else "",
        "at": f" ({name})" if name else "",
    }
    return UserError(problem.format(**words), remedy)


def exhausted(error: Exception) -> UserError | None:
    """What the system has no more of, in our words, where no error of its own says so; else None."""
    said = [number for words, number in _SAID.items() if words in str(error)]
    numbers = [errno.ENOMEM] if isinstance(error, MemoryError) else said
    return system_error(OSError(numbers[0], os.strerror(numbers[0]))) if numbers else None
