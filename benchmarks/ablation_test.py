"""The chosen setting against nnU-Net on the patients for testing, from the published runs of both.

    python benchmarks/ablation_test.py docs/ablation/test half_time_0_again half_time_0.3_fixed_both

``ccdcseg compare`` for two settings of which nnU-Net is CCDC's with a weight of 0: means by setting and seed, then
differences by patient. The two metrics in their mean over the structures are tested (Holm); structures are
exploratory and have no p.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from ablation_table import Evaluations, evaluations, load, tables
from ccdcseg.evaluation.compare import Comparison, compare
from ccdcseg.evaluation.display import METRICS, interval_text, number, p_text, signed
from ccdcseg.evaluation.family import FAMILY, compare_family
from ccdcseg.evaluation.patients import MEAN, bootstrap_interval, patient_values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("nnunet", help="name of its runs")
    parser.add_argument("chosen", help="name of the chosen setting's runs")
    options = parser.parse_args()
    settings = load(tables([options.runs]))
    found = {name: evaluations(trainings) for (name, _), trainings in settings.items()}
    methods = {"nnU-Net": found[options.nnunet], "chosen": found[options.chosen]}
    table(
        ("setting", "seed", *FAMILY, "missed"),
        [row for name in methods for row in means(name, methods[name])],
    )
    outcomes = compare_family(methods, [("chosen", "nnU-Net")])
    rows = [
        (*difference(each.comparison), p_text(each.comparison.p_value), p_text(each.p_adjusted))
        for each in outcomes
    ]
    for metric in FAMILY:
        for structure in next(iter(methods["chosen"].values()))["classes"]:
            result = compare(methods["chosen"], methods["nnU-Net"], metric, structure)
            rows.append((*difference(result), "", ""))
    table(("metric", "structure", "difference", "patients and seeds", "by seed", "r", "p", "p, Holm"), rows)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one."""
    for row in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def means(name: str, by_seed: Evaluations) -> list[tuple[str, ...]]:
    """A setting's metrics, mean over the patients with its interval, for each seed."""
    rows = []
    for seed, evaluation in by_seed.items():
        shown = []
        for metric in FAMILY:
            values = list(patient_values(evaluation["cases"], evaluation["classes"], metric).values())
            interval = interval_text(bootstrap_interval(values), METRICS[metric])
            shown.append(f"{number(mean(values), METRICS[metric])} [{interval}]")
        missed = sum(row["status"] == "missed" for row in evaluation["cases"])
        rows.append((name, str(seed), *shown, str(missed)))
    return rows


def difference(result: Comparison) -> tuple[str, ...]:
    """What is printed of one comparison, without p."""
    metric = METRICS[result.metric]
    seeds = ", ".join(signed(value, metric) for value in result.per_seed.values())
    structure = "all" if result.class_name == MEAN else result.class_name
    shown = f"{signed(result.mean_difference, metric)} [{interval_text(result.interval, metric, True)}]"
    crossed = f"[{interval_text(result.interval_seeds, metric, True)}]"
    return metric.name, structure, shown, crossed, seeds, f"{result.rank_biserial:+.2f}"


if __name__ == "__main__":
    main()
