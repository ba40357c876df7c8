import pickle

from ccdcseg.errors import UserError


def test_one_line_of_problem_and_remedy():
    error = UserError("It is\n  wrong.", "Mend\tit.")
    assert str(error) == "It is wrong. Mend it."
    assert (error.problem, error.remedy) == ("It is wrong.", "Mend it.")


def test_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(UserError("It is wrong.", "Mend it.")))
    assert isinstance(error, UserError)
    assert str(error) == "It is wrong. Mend it."
    assert error.remedy == "Mend it."
