"""Run a declared experiment and publish the small files of each run.

    python study/ablation.py DATASET study/ablation/runs.yaml --output study/ablation/runs --workers 2

It is ``ccdcseg reproduce FILE --dataset DATASET`` for runs that are in no folder of the output yet, on the patients
for choosing (``--part test``: for testing), and then ``publish``; results are stored in ``--store``.
"""

import argparse
from pathlib import Path

from ccdcseg.experiments.experiment import load_experiment
from ccdcseg.experiments.jobs import Choice, Job, plan_jobs
from ccdcseg.experiments.reproduce import run_jobs
from ccdcseg.experiments.runner import Runner
from ccdcseg.experiments.threads import plan_threads
from ccdcseg.progress import progress_bars
from publish_results import publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("list")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path("reproduced"))
    parser.add_argument("--part", choices=("test", "validation"), default="validation")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    choice = Choice(arguments.dataset, part=arguments.part)
    places = {
        job: arguments.output / f"{job.row}_seed{job.seed}"
        for job in plan_jobs(load_experiment(arguments.list), choice, arguments.store)
    }
    jobs = [job for job, place in places.items() if not (place / "evaluation.csv").exists()]
    runner = Runner(arguments.workers, plan_threads(jobs, arguments.workers).count)
    with progress_bars() as report:
        problems = run_jobs(jobs, runner, report, lambda: None)
    for job in jobs:
        print(problems.get(job) or _published(job, places[job]), flush=True)


def _published(job: Job, place: Path) -> str:
    publish(job.run, place, job.part)
    return f"{job.label}: measured"


if __name__ == "__main__":
    main()
