"""How pixels of the classes lie to each other in a trained network: distances within and between classes.

    python study/representations.py RUN [RUN ...] [--part validation] > REPRESENTATIONS.md

The text that it writes (HEADER) says what is measured.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ccdcseg.datasets.cases import read_cases, read_file_ending
from ccdcseg.losses import CCDCLoss
from ccdcseg.losses.ccdc.settings import CCDCSettings
from ccdcseg.nnunet.checkpoints import OWN_KEY, load_checkpoint
from ccdcseg.nnunet.images import run_images
from ccdcseg.nnunet.models import build_predictor
from ccdcseg.nnunet.preset import preset_of_plans
from ccdcseg.progress import progress_bars
from ccdcseg.runs.record import RunRecord, read_record
from errors import run_name

PIXELS = 64
HEADER = f"""# Distances of representations

Written by `study/representations.py`. From every slice with heart in the reference a patch of the training's
size around the heart's centre goes through the network. Of each class in it up to {PIXELS} pixels are drawn; their
features are those of the last decoder stage (for a run with CCDC also its head's embeddings of single pixels), at
unit length. A class's centre is the unit mean over all patients but the pixel's own, so that nothing is near a
centre because it helped to make it. For each class, the mean over patients of:

- within: distance (1 - cosine) of its pixels to its centre;
- between: their distance to the nearest centre of another class;
- nearest: % of its pixels that are nearer to their own centre than to any other.
"""

Vectors = dict[tuple[str, int], Tensor]
"""(patient, class) to (n, d) unit vectors."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    print("| run | of | class | within | between | nearest |")
    print("| --- | --- | --- | --- | --- | --- |")
    with progress_bars() as report:
        for run in options.runs:
            record = read_record(run)
            name = run_name(record)
            features = run_features(run, record.local("reference", run), options.part, report)
            names = {0: "background"} | {value: label for label, value in record.labels.items()}
            spaces = {"features": features} | embedded(run, record, features)
            for space, vectors in spaces.items():
                unit = {key: F.normalize(value, dim=1) for key, value in vectors.items()}
                for c, row in distances(unit).items():
                    print(f"| {name} | {space} | {names[c]} | {row[0]:.2f} | {row[1]:.2f} | {row[2]:.0f} |")


def run_features(run: Path, references: Path, part: str, report: Any) -> Vectors:
    """Features of drawn pixels of every patient and class."""
    predictor = build_predictor(run, "cpu")
    network, kept = predictor.network.eval(), []
    network.decoder.stages[-1].register_forward_hook(lambda _module, _input, output: kept.append(output))
    images = run_images(run, part)
    patients = {case.case: case.patient for case in read_cases(references.parent)}
    ending = read_file_ending(references.parent)
    generator = torch.Generator().manual_seed(0)
    found: dict[tuple[str, int], list[Tensor]] = {}
    for done, (case, files) in enumerate(images.items()):
        report("cases", done, len(images))
        for patch, labels in patches(predictor, files, references / f"{case}{ending}"):
            with torch.inference_mode():
                network(patch)
            flat = kept.pop()[0].flatten(1).T
            for c in torch.unique(labels[labels >= 0]).tolist():
                members = (labels.flatten() == c).nonzero()[:, 0]
                drawn = members[torch.randperm(len(members), generator=generator)[:PIXELS]]
                found.setdefault((patients[case], c), []).append(flat[drawn].clone())
    return {key: torch.cat(parts) for key, parts in found.items()}


def patches(predictor: Any, files: Sequence[Path], reference: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """The patch (1, channels, y, x) around the heart of each slice that has some, and its labels (y, x)."""
    configuration = predictor.configuration_manager
    data, segmentation, _ = configuration.preprocessor_class(verbose=False).run_case(
        [str(file) for file in files],
        str(reference),
        predictor.plans_manager,
        configuration,
        predictor.dataset_json,
    )
    height, width = configuration.patch_size
    for image, labels in zip(np.moveaxis(data, 1, 0), segmentation[0], strict=True):
        if not (labels > 0).any():
            continue
        top, left = (
            int(axis.mean()) - size // 2
            for axis, size in zip(np.nonzero(labels > 0), (height, width), strict=True)
        )
        window = cut(image, top, left, height, width, 0), cut(labels[None], top, left, height, width, -1)
        yield torch.from_numpy(window[0][None]).float(), torch.from_numpy(window[1][0]).long()


def cut(planes: Any, top: int, left: int, height: int, width: int, fill: int) -> Any:
    """A window of (n, y, x) planes, filled where it reaches beyond them."""
    padded = np.pad(planes, ((0, 0), (height, height), (width, width)), constant_values=fill)
    return padded[:, top + height : top + 2 * height, left + width : left + 2 * width]


def embedded(run: Path, record: RunRecord, features: Vectors) -> dict[str, Vectors]:
    """The same pixels behind CCDC's head, for a run that has one and reads the last decoder stage."""
    if record.method != "ccdc" or record.settings["decoder_stage"]:
        return {}
    channels = next(iter(features.values())).shape[1]
    settings = CCDCSettings.part_of(preset_of_plans({"ccdcseg": record.settings}).ccdc)
    criterion = CCDCLoss(channels, 1 + len(record.labels), **settings)
    own = load_checkpoint(run / "checkpoint_final.pth")[OWN_KEY]
    criterion.load_state_dict(own["contrastive"])
    with torch.inference_mode():
        found = {
            key: criterion.head.vectors(rows.T[None, :, None], torch.arange(len(rows)))
            for key, rows in features.items()
        }
    return {"embedding": found}


def distances(vectors: Vectors) -> dict[int, tuple[float, float, float]]:
    """By class: within, between, and % nearest to the own centre."""
    patients = sorted({patient for patient, _ in vectors})
    classes = sorted({c for _, c in vectors})
    sums = {key: rows.sum(0) for key, rows in vectors.items()}
    totals = {c: torch.stack([value for key, value in sums.items() if key[1] == c]).sum(0) for c in classes}
    rows: dict[int, list[tuple[float, float, float]]] = {c: [] for c in classes}
    for patient in patients:
        others = [totals[c] - sums.get((patient, c), torch.zeros_like(totals[c])) for c in classes]
        centres = F.normalize(torch.stack(others), dim=1)
        for place, c in enumerate(classes):
            if (patient, c) not in vectors:
                continue
            away = 1 - vectors[patient, c] @ centres.T
            own, rest = away[:, place], np.delete(away.numpy(), place, 1).min(1)
            nearer = 100 * (own.numpy() < rest).mean()
            rows[c].append((float(own.mean()), float(rest.mean()), float(nearer)))
    return {c: tuple(np.mean(each, axis=0)) for c, each in rows.items()}


if __name__ == "__main__":
    main()
