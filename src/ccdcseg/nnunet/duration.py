"""How long a training and its predictions take on a CPU, roughly and before they begin."""

from collections.abc import Iterable
from math import prod

from ccdcseg.cores import has_bfloat16, requested_threads, usable_cores
from ccdcseg.nnunet.preset import Preset, UnlabelledScans
from ccdcseg.nnunet.runs import Run, teachers_of
from ccdcseg.runs.history import count_epochs

SECONDS = {"bfloat16": 1.3e-8, "none": 3e-8}
"""One thread's time for a voxel of a patch and a pair of the first stage's channels, forward and backward; measured
with nnU-Net's network in 2-D and 3-D, patches of 128x128 to 16x128x128, 16 and 32 channels, 2024's processors."""
TRANSFORMER = 0.1
"""That of nnFormer, whose first stage has a quarter of the resolution in the plane, as a share of the others'."""
PLANNED_VOXELS = 3_000_000
"""What nnU-Net's planner puts into a batch for a GPU of 8 GB."""
PLANNED_CHANNELS = 32
LONG_SECONDS = 12 * 3600
"""Trainings on a CPU that take longer want to be confirmed."""
FORWARD = 0.3
"""The way through a network without the way back, as a share of a step of the training."""
SCAN_VOXELS = 1_500_000
"""What the sliding window reads of an ordinary scan of a heart, each voxel some four times."""
OVERLAP = 4
"""These times; labels for a training are made without overlap, and without mirroring."""
MIRRORED = {"2d": 4, "3d_fullres": 8}
"""Copies of a patch that are predicted, by configuration."""


def run_seconds(run: Run) -> float:
    """Time of one thread for a training, see `thread_seconds`."""
    scans = run.split["unlabelled"]["cases"] if run.preset.unlabelled.use else ()
    return thread_seconds(run.preset, run.method, len(scans))


def thread_seconds(preset: Preset, method: str, scans: int = 0) -> float:
    """Time of one thread for a training with a preset; several threads share it.

    It is right to a factor of two or three: processors and other load differ by as much.

    Args:
        preset: resolved settings; where the planner decides, what it mostly decides.
        method: key of `METHODS`.
        scans: that take part without masks; they are taken for ordinary ones of a heart.
    """
    training = preset.training
    rate = SECONDS[training.cpu_autocast if has_bfloat16() else "none"]
    steps = training.iterations_per_epoch + FORWARD * training.validation_iterations
    labels = FORWARD * _labelled(preset.unlabelled, scans) * SCAN_VOXELS / OVERLAP * _cost(preset, method)
    return rate * (training.epochs * steps * patch_work(preset, method) + labels)


def _labelled(settings: UnlabelledScans, scans: int) -> int:
    """How often a network goes through a scan without mask."""
    if settings.teachers is not None:
        return settings.teachers * scans
    return settings.times * min(settings.scans or scans, scans)


def patch_work(preset: Preset, method: str) -> float:
    """Voxels of a batch, each times the pairs of the first stage's channels."""
    network, voxels = preset.network, PLANNED_VOXELS
    if network.patch_size and network.batch_size:
        voxels = network.batch_size * prod(network.patch_size)
    return voxels * _cost(preset, method)


def to_train(runs: Iterable[Run]) -> list[Run]:
    """The trainings, each once, that are not finished, and teachers that they take."""
    needed = [one for run in runs if not run.finished for one in (*teachers_of(run), run)]
    return list({one.folder: one for one in needed if not one.finished}.values())


def thread_seconds_left(runs: Iterable[Run]) -> float:
    """Time of one thread until trainings are finished, those of their teachers among them, as roughly."""
    return sum(
        (1 - count_epochs(run.folder) / run.preset.training.epochs) * run_seconds(run)
        for run in to_train(runs)
    )


def cpu_seconds(runs: Iterable[Run]) -> float:
    """The same on this machine's CPU."""
    return thread_seconds_left(runs) / (requested_threads() or usable_cores())


def scan_seconds(preset: Preset, method: str) -> float:
    """Time of one thread for the prediction of a scan; as rough, and scans differ by more."""
    mirrored = preset.prediction.mirroring and preset.training.mirrors
    copies = MIRRORED[preset.network.configuration] if mirrored else 1
    return FORWARD * copies * SCAN_VOXELS * SECONDS["none"] * _cost(preset, method)


def _cost(preset: Preset, method: str) -> float:
    """Of a voxel of a patch, where one channel costs 1."""
    if method == "nnformer":
        return TRANSFORMER * preset.nnformer.embedding_channels**2
    features = preset.network.features_per_stage
    return (features[0] if features else PLANNED_CHANNELS) ** 2


def duration_text(seconds: float) -> str:
    """A rough time in minutes, hours or days."""
    for unit, size in (("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds / 60))} min"
