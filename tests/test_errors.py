import errno
import os
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ccdcseg.errors import UserError, exhausted, system_error


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


@pytest.mark.parametrize("make", [np.empty, lambda size: torch.empty(size, dtype=torch.uint8)])
def test_memory_that_numpy_or_pytorch_does_not_get(make: Callable[[int], object]):
    with pytest.raises((MemoryError, RuntimeError)) as raised:
        make(2**50)
    told = exhausted(raised.value)
    assert told is not None
    assert told.problem == "There is not enough memory."


def test_who_has_no_option_for_processes_is_told_the_variable():
    """`report` and others have none."""
    told = [system_error(OSError(number, os.strerror(number))).remedy for number in errno.errorcode]
    advised = [remedy for remedy in told if "--processes" in remedy]
    assert len(advised) == 4
    assert all("nnUNet_def_n_proc=1 where there is no such option" in remedy for remedy in advised)


def test_a_thread_that_is_not_started_and_an_error_of_another_kind():
    told = exhausted(RuntimeError("can't start new thread"))
    assert told is not None
    assert "starts no more processes or threads" in told.problem
    assert exhausted(RuntimeError("shapes do not fit")) is None
