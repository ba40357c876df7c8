"""A setting against nnU-Net on patients for testing, from the published runs of both.

    python study/ablation_test.py study/data/test half_time_0_again half_time_0.3_fixed_both
    python study/ablation_test.py study/data/chaos nnunet half_resolution --name "half resolution"

The tables of ``ccdcseg report`` and ``ccdcseg compare``, which know two settings of CCDC and not that the one of
weight 0 is nnU-Net.
"""

import argparse
from pathlib import Path

from ablation_table import Training, load
from ccdcseg.report.tables import evaluations_of, seed_grid, structure_grid
from ccdcseg.runs.finished import Arm, FinishedRun
from ccdcseg.statistics.family import FAMILY, compare_family
from ccdcseg.statistics.family_table import comparison_grid
from ccdcseg.tabular import to_section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("nnunet", help="name of its runs")
    parser.add_argument("setting", help="name of its runs")
    parser.add_argument("--name", default="chosen", help="of the setting, in the tables")
    options = parser.parse_args()
    found = {name: trainings for (name, _), trainings in load([options.runs]).items()}
    arms = [arm("nnU-Net", found[options.nnunet]), arm(options.name, found[options.setting])]
    outcomes = compare_family(evaluations_of(arms), [(options.name, "nnU-Net")])
    by_seed = [seed_grid(arms, name) for name in FAMILY]
    grids = [*filter(None, by_seed), comparison_grid(outcomes), structure_grid(outcomes, arms)]
    print("\n".join(map(to_section, grids)))


def arm(label: str, trainings: dict[int, Training]) -> Arm:
    """Published runs as the report's."""
    runs = (
        FinishedRun(Path(), "test", training.record, training.evaluation, ())
        for training in trainings.values()
    )
    return Arm(label, tuple(runs))


if __name__ == "__main__":
    main()
