from ccdcseg.datasets.sequences import CardiacSequence, ChaosSequence


def test_the_words_of_the_command_line() -> None:
    assert [*ChaosSequence] == ["t1-in", "t1-out", "t2"]
    assert [*CardiacSequence] == ["lge", "t2", "bssfp"]
