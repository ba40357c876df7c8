"""What labels of scans without masks cost a training: ``python benchmarks/unlabelled.py 27 [--preset cpu]``.

Steps on plain and on mixed batches in turn, and one writing of labels, are timed in one process (time of the
processor, so that other work on the machine counts little), and the ratio of a whole training of the preset to a
plain one of as many steps is printed. The data set is prepared, and its split of seed 0 names scans without masks.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from ccdcseg.nnunet.runs import resolve_run
from ccdcseg.nnunet.stock import stock_nnunet
from ccdcseg.nnunet.train import _trainer, prepare
from ccdcseg.nnunet.unlabelled import writing_epochs

STEPS = 20


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results  # noqa: SIM112 - nnU-Net's spelling
        found = measure(arguments.dataset, arguments.preset, arguments.fraction)
    print(
        json.dumps(found)
        if arguments.json
        else "\n".join(f"{name}: {value:.4g}" for name, value in found.items())
    )


def measure(dataset: str, preset: str, fraction: float) -> dict[str, float]:
    """Seconds of a plain step, a mixed one and a writing of labels, and the ratio of whole trainings."""
    run = resolve_run(dataset, "nnunet", fraction, 0, preset, unlabelled=True)
    run.folder.mkdir(parents=True)
    trainer = _trainer(run, prepare(run, 2, lambda *_: None), "cpu")
    with stock_nnunet():
        trainer.initialize()
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        batches = trainer.dataloader_train
        writes = writing_epochs(run.preset.unlabelled, trainer.num_epochs)
        trainer.current_epoch = writes[0]
        labels = seconds(trainer.unlabelled.start_epoch)
        trainer.network.train()
        kinds = (batches, None), (trainer.dataloader_train, trainer.unlabelled.annotated)
        times: list[list[float]] = [[], []]
        for _ in range(STEPS):
            for kind, (trainer.dataloader_train, trainer.unlabelled.annotated) in enumerate(kinds):
                times[kind].append(seconds(lambda: step(trainer)))
        plain, mixed = map(median, times)
    steps = trainer.num_epochs * trainer.num_iterations_per_epoch
    without = writes[0] * trainer.num_iterations_per_epoch
    whole = without * plain + (steps - without) * mixed + len(writes) * labels
    return {
        "plain_step_s": plain,
        "mixed_step_s": mixed,
        "labels_s": labels,
        "ratio": whole / (steps * plain),
    }


def step(trainer: Any) -> None:
    """One step of a training."""
    trainer.train_step(next(trainer.dataloader_train))


def seconds(work: Callable[[], object]) -> float:
    """Of the processor that it takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
