"""The one error that a user's mistake raises."""

from ccdcseg.texts import one_line


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
