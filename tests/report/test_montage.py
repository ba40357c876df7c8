import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread

from ccdcseg.errors import UserError
from ccdcseg.report.montage import montage, montage_picture
from ccdcseg.report.pictures import choose_cases
from ccdcseg.runs.finished import load_arms


def test_a_montage_has_a_row_for_each_case_and_a_column_for_each_method(runs):
    arms = load_arms(runs)
    choices = choose_cases(arms)
    figure = montage(choices, arms)
    assert len(figure.axes) == len(choices) * (1 + len(arms))
    assert [axes.get_title() for axes in figure.axes[:3]] == ["Reference", "CCDC", "nnU-Net"]
    assert (
        figure.axes[0].get_xlabel().replace("\n", " ").startswith(f"{choices[0].case}, slice 2 lowest Dice")
    )
    dice = [row.dice for row in arms[0].runs[0].evaluation.cases if row.case == choices[0].case]
    assert figure.axes[1].get_xlabel() == f"Dice {100 * np.mean(dice):.1f}, seed 0"
    picture = montage_picture(figure, "what it shows")
    assert picture.alt == "what it shows"
    image = base64.b64decode(picture.uri.removeprefix("data:image/webp;base64,"))
    assert imread(io.BytesIO(image), format="webp").std() > 20


def test_a_picture_names_the_seed_whose_prediction_it_is(runs):
    """A scan that the first seed did not predict, since it trained on the patient, is the second one's."""
    arms = load_arms(runs)
    choices = choose_cases(arms)
    first = arms[0].runs[0]
    assert len(arms[0].runs) > 1
    assert choices[1].case != choices[0].case
    (first.predictions / f"{choices[1].case}.nii.gz").unlink()
    axes = montage(choices, arms).axes
    rows = [axes[row * (1 + len(arms)) + 1].get_xlabel() for row in (0, 1)]
    assert [text.split(", ")[-1] for text in rows] == ["seed 0", "seed 1"]


def test_a_montage_without_predictions_says_whose(bare_runs):
    arms = load_arms(bare_runs)
    with pytest.raises(UserError, match="CCDC has no prediction of"):
        montage(choose_cases(arms), arms)
