import errno
import os
import pickle

import pytest

from ccdcseg.errors import UserError, system_error


def test_one_line_of_problem_and_remedy():
    error = UserError("It is\n  wrong.", "Mend\tit.")
    assert str(error) == "It is wrong. Mend it."
    assert (error.problem, error.remedy) == ("It is wrong.", "Mend it.")


def test_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(UserError("It is wrong.", "Mend it.")))
    assert isinstance(error, UserError)
    assert str(error) == "It is wrong. Mend it."
    assert error.remedy == "Mend it."


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_whatever_the_system_refuses_is_a_sentence_with_the_file_and_a_remedy(number: int):
    error = system_error(OSError(number, os.strerror(number), "/some/{file}"))
    assert "/some/{file}" in error.problem
    assert error.problem.endswith(".")
    assert error.remedy.endswith(".")
    assert "None" not in str(system_error(OSError(number, os.strerror(number))))


def test_the_file_may_be_named_otherwise():
    error = OSError(errno.ENOSPC, "No space left on device")
    assert system_error(error).problem == "The disk is full."
    assert system_error(error, "/there").problem == "The disk of /there is full."


def test_an_error_that_a_library_words_itself_keeps_its_words():
    assert "encoder error -2 {}" in system_error(OSError("encoder error -2 {}")).problem
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    assert "No usable temporary directory found in ['/tmp']" in system_error(error).problem
