"""Run a declared experiment and publish each run.

    python study/ablation.py DATASET study/ablation/runs.yaml --output study/data/ablation --workers 2

It is ``ccdcseg reproduce DATASET FILE`` for runs that the tables of the output do not have yet, on the
patients for choosing (``--part test``: for testing), and then ``published.py add``; ``--store`` keeps results.
"""

import argparse
from pathlib import Path

from ccdcseg.experiments.experiment import load_experiment
from ccdcseg.experiments.jobs import Choice, Job, plan_jobs
from ccdcseg.experiments.reproduce import run_jobs
from ccdcseg.experiments.runner import Runner
from ccdcseg.experiments.threads import plan_threads
from ccdcseg.progress import progress_bars
from published import add_runs, from_folder, runs_in


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
    there = {run.name for run in runs_in(arguments.output)}
    planned = plan_jobs(load_experiment(arguments.list), choice, arguments.store)
    jobs = [job for job in planned if _name(job) not in there]
    runner = Runner(arguments.workers, plan_threads(jobs, arguments.workers).count)
    with progress_bars() as report:
        problems = run_jobs(jobs, runner, report, lambda: None)
    for job in jobs:
        print(problems.get(job) or _published(job, arguments.output), flush=True)


def _published(job: Job, output: Path) -> str:
    add_runs(output, [from_folder(job.run, job.part, _name(job))])
    return f"{job.label}: measured"


def _name(job: Job) -> str:
    return f"{job.row}_seed{job.seed}"


if __name__ == "__main__":
    main()
