from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.experiments.experiment import load_experiment
from ccdcseg.experiments.jobs import Choice, plan_jobs

MINE = """
title: mine
fractions: [0.4]
rows:
  - {name: nnunet, method: nnunet}
  - {name: literal}
  - {name: weak, changes: [ccdc.weight=0.1]}
  - {name: default, changes: [ccdc.queries=64]}
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return str(path)


def test_trainings_of_equal_settings_share_their_folder(workspace, mine: str, tmp_path: Path):
    jobs = plan_jobs(load_experiment(mine), Choice("901", preset="smoke"), tmp_path)
    folders = {job.row: job.folder for job in jobs}
    assert folders["literal"] == folders["default"]  # 64 queries are the preset's own
    assert len(set(folders.values())) == 3
    again = plan_jobs(load_experiment(mine), Choice("901", preset="smoke", only=("weak",)), tmp_path)
    assert [job.folder for job in again] == [folders["weak"]]


def test_a_split_or_part_that_is_not_there(workspace, mine: str, tmp_path: Path):
    with pytest.raises(UserError, match="ccdcseg split"):
        plan_jobs(load_experiment(mine), Choice("901", seeds=(5,)), tmp_path)
    with pytest.raises(UserError, match="no patients for validation"):
        plan_jobs(load_experiment(mine), Choice("901", part="validation"), tmp_path)
