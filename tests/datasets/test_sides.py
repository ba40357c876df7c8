import pytest

from ccdcseg.datasets.sides import sides


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_kidney", "right_kidney"),
        ("kidney_left", "kidney_right"),
        ("LeftKidney", "RightKidney"),
        ("Left-Hippocampus", "Right-Hippocampus"),
        ("kidney L", "kidney R"),
        ("kidneyL", "kidneyR"),
        ("LEFT LUNG", "right lung"),
        ("rib_left_1", "rib_right_1"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("Lt. kidney", "Rt. kidney"),
    ],
)
def test_two_sides_of_one_organ(left: str, right: str):
    assert sides(["background", right, "liver", left]) == ((left, right),)


@pytest.mark.parametrize(
    "names",
    [
        ["RV", "Myo", "LV"],
        ["left_kidney", "liver"],
        ["left_kidney", "right_lung"],
        ["rib_left_1", "rib_right_2"],
        ["lesion", "resion"],
        ["", "left"],
        [],
    ],
)
def test_other_names(names: list[str]):
    assert sides(names) == ()


def test_each_pair_is_told():
    names = ["lung_left", "lung_right", "kidney_right", "kidney_left", "left", "right"]
    assert sides(names) == (
        ("lung_left", "lung_right"),
        ("kidney_left", "kidney_right"),
        ("left", "right"),
    )
