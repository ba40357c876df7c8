"""From a preset to nnU-Net plans, and the preprocessing they ask for."""

import multiprocessing
import shutil
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from ccdcseg.datasets.raw_folder import case_files
from ccdcseg.datasets.splits import UnlabelledSplit, unread_cases
from ccdcseg.datasets.unlabelled import Kind, ScanFacts
from ccdcseg.errors import UserError
from ccdcseg.files import json_hash, read_json, write_json
from ccdcseg.nnunet.preset import Network, Preset
from ccdcseg.processes import Progress, foreign_pools, pool_map, worker_processes

UNLABELLED_SUFFIX = "_unlabelled"
"""Of the folder of preprocessed scans without masks, which lie apart from those of the same plans with masks."""


def base_plans(raw: Path, preprocessed: Path, processes: int = 2) -> dict[str, Any]:
    """nnU-Net's own plans of a dataset, made by its fingerprint extractor and planner where they are not there.

    Planning reads spacing, shape and intensities of every case in ``imagesTr``, the test cases among them, but for
    cases whose masks the splits leave unread.
    """
    path = preprocessed / "nnUNetPlans.json"
    if not path.exists():
        from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (  # noqa: PLC0415 - slow
            DatasetFingerprintExtractor,
        )
        from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: PLC0415 - slow
            plan_experiments,
        )

        number = int(raw.name[7:10])
        extractor = DatasetFingerprintExtractor(number, processes)
        unread = unread_cases(raw)
        extractor.dataset = {case: files for case, files in extractor.dataset.items() if case not in unread}
        with foreign_pools():
            extractor.run()
        plan_experiments([number])
    plans: dict[str, Any] = read_json(path)
    return plans


def preset_plans(base: dict[str, Any], name: str, preset: Preset) -> dict[str, Any]:
    """nnU-Net's plans with the preset's network, and the preset itself under the key "ccdcseg".

    Args:
        base: nnU-Net's plans.
        name: under which they are stored; nnU-Net's users give it as ``-p``.
        preset: what to change.

    Raises:
        UserError: the preset's network does not fit its patch, or the dataset.
    """
    wanted = preset.network
    if wanted.configuration not in base["configurations"]:
        raise UserError(
            f"nnU-Net made no {wanted.configuration} configuration for {base['dataset_name']}.",
            f"Set network.configuration to one of {', '.join(base['configurations'])}.",
        )
    plans = deepcopy(base)
    configuration = plans["configurations"][wanted.configuration]
    plans["plans_name"] = name
    plans["ccdcseg"] = preset.model_dump(mode="json")
    dimensions = len(configuration["patch_size"])
    for key in ("patch_size", "spacing_mm"):
        value = getattr(wanted, key)
        if value is not None and len(value) != dimensions:
            raise UserError(
                f"network.{key} has {len(value)} numbers, {wanted.configuration} needs {dimensions}.",
                "Give one for each axis, the slowest first.",
            )
    if wanted.batch_size is not None:
        configuration["batch_size"] = wanted.batch_size
    if wanted.spacing_mm is not None:
        configuration["spacing"] = list(wanted.spacing_mm)
    if wanted.patch_size is not None or wanted.features_per_stage is not None:
        _replace_architecture(configuration, wanted)
    configuration["data_identifier"] = _data_identifier(wanted.configuration, configuration)
    plans["configurations"] = {wanted.configuration: configuration}
    return plans


def _replace_architecture(configuration: dict[str, Any], wanted: Network) -> None:
    """Write patch size and network topology, by nnU-Net's own rule for strides and kernels."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import (  # noqa: PLC0415 - slow
        get_pool_and_conv_props,
    )

    patch = list(wanted.patch_size or configuration["patch_size"])
    _, strides, kernels, *_ = get_pool_and_conv_props(configuration["spacing"], patch, 4, 999999)
    arguments = configuration["architecture"]["arch_kwargs"]
    stages = len(wanted.features_per_stage or _dividing(strides, patch))
    if stages > len(strides) or stages < 3:
        raise UserError(
            f"network.features_per_stage has {stages} stages, a patch of {patch} allows 3 to {len(strides)}.",
            "Change the stages or network.patch_size.",
        )
    strides, kernels = strides[:stages], kernels[:stages]
    for size, steps in zip(patch, zip(*strides, strict=True), strict=True):
        if size % prod(steps):
            raise UserError(
                f"network.patch_size {patch} cannot be halved as often as {stages} stages need.",
                f"Make {size} a multiple of {prod(steps)}.",
            )
    largest = max(arguments["features_per_stage"])
    first = arguments["features_per_stage"][0]
    features = wanted.features_per_stage or [min(first * 2**i, largest) for i in range(stages)]
    configuration["patch_size"] = patch
    arguments.update(
        n_stages=stages,
        features_per_stage=list(features),
        strides=[list(map(int, s)) for s in strides],
        kernel_sizes=[list(map(int, k)) for k in kernels],
    )
    for key, blocks in (("n_conv_per_stage", stages), ("n_blocks_per_stage", stages)):
        if key in arguments:
            arguments[key] = _resized(arguments[key], blocks)
    arguments["n_conv_per_stage_decoder"] = _resized(arguments["n_conv_per_stage_decoder"], stages - 1)


def _dividing(strides: Sequence[Sequence[int]], patch: Sequence[int]) -> Sequence[Sequence[int]]:
    """The first strides, as many as divide the patch one after the other."""
    for count in range(1, len(strides) + 1):
        totals = map(prod, zip(*strides[:count], strict=True))
        if any(size % total for size, total in zip(patch, totals, strict=True)):
            return strides[: count - 1]
    return strides


def _resized(values: list[int], length: int) -> list[int]:
    return [*values, *[values[-1]] * length][:length]


def _data_identifier(name: str, configuration: dict[str, Any]) -> str:
    """Folder of the preprocessed data: the same for all plans that preprocess alike."""
    keys = ("spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name")
    resampling = {k: v for k, v in configuration.items() if k.startswith("resampling")}
    content = {**{k: configuration[k] for k in keys}, **resampling}
    digest = json_hash(content)[:8]
    return f"ccdcseg_{name}_{digest}"


def store_plans(plans: dict[str, Any], raw: Path, preprocessed: Path) -> None:
    """Put plans, dataset.json and splits where nnU-Net looks for them."""
    write_json(preprocessed / f"{plans['plans_name']}.json", plans)
    for name in ("dataset.json", "splits_final.json"):
        write_json(preprocessed / name, read_json(raw / name))


Scan = tuple[list[Path], Path | None]
"""Images of a scan, one a channel, and its mask; None: it has none, or it is not to be read."""


def preprocess(
    cases: Iterable[str],
    raw: Path,
    preprocessed: Path,
    plans: dict[str, Any],
    processes: int,
    progress: Progress,
) -> None:
    """Preprocess the cases a training needs with nnU-Net's preprocessor; those already done are skipped."""
    references = preprocessed / "gt_segmentations"
    references.mkdir(parents=True, exist_ok=True)
    dataset = read_json(raw / "dataset.json")
    scans: dict[str, Scan] = {}
    for case in cases:
        *images, mask = case_files(raw, case)
        scans[case] = images, mask
    for case in preprocess_scans(
        scans, preprocessed_folder(preprocessed, plans), plans, dataset, processes, progress
    ):
        shutil.copyfile(str(scans[case][1]), references / f"{case}{dataset['file_ending']}")


def preprocessed_folder(preprocessed: Path, plans: Mapping[str, Any], *, unlabelled: bool = False) -> Path:
    """Where the preprocessed scans of plans with one configuration lie; those without masks lie apart."""
    (configuration,) = plans["configurations"].values()
    return preprocessed / f"{configuration['data_identifier']}{UNLABELLED_SUFFIX if unlabelled else ''}"


def preprocess_scans(
    scans: Mapping[str, Scan],
    folder: Path,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    processes: int,
    progress: Progress,
    kind: Kind | None = None,
) -> list[str]:
    """Preprocess scans with nnU-Net's preprocessor; those already done are skipped.

    Args:
        scans: by name.
        folder: where they go.
        plans: with one configuration.
        dataset: content of ``dataset.json``.
        processes: of the pool.
        progress: called with scans done and scans to do.
        kind: what they have to be like; None: anything.

    Returns:
        Names of those that were not there yet.

    Raises:
        UserError: a scan is not of the kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in scans if not (folder / f"{name}.pkl").exists()]
    if not missing:
        return []
    one = partial(_preprocess_scan, folder=folder, plans=plans, dataset=dataset, kind=kind)
    items = [(name, scans[name]) for name in missing]
    pool_map(one, items, worker_processes(min(processes, len(items))), progress)
    return missing


def preprocess_unlabelled(
    split: UnlabelledSplit,
    folder: Path,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    processes: int,
    progress: Progress,
) -> None:
    """Preprocess the scans without masks of a split; those already done are skipped.

    Args:
        split: which they are.
        folder: see `preprocess_scans`, as are the others.
        plans: with one configuration.
        dataset: content of ``dataset.json``.
        processes: of the pool.
        progress: called with scans done and scans to do.

    Raises:
        UserError: a scan is not of the kind of the annotated ones.
    """
    if all((folder / f"{name}.pkl").exists() for name in split.images):
        return
    scans: dict[str, Scan] = {name: (images, None) for name, images in split.images.items()}
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415 - slow

    kind = Kind(tuple(_facts(PlansManager(plans), images) for images in split.annotated))
    preprocess_scans(scans, folder, plans, dataset, processes, progress, kind)


def _facts(manager: Any, images: Sequence[Path]) -> ScanFacts:
    channels, properties = manager.image_reader_writer_class().read_images([str(image) for image in images])
    return ScanFacts.of(channels, properties["spacing"])


def _preprocess_scan(
    item: tuple[str, Scan], folder: Path, plans: dict[str, Any], dataset: dict[str, Any], kind: Kind | None
) -> None:
    """Preprocess one scan; its .pkl file is moved into place last and marks it as done."""
    import torch  # noqa: PLC0415 - slow
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415 - slow

    if multiprocessing.parent_process():  # the threads of the process that trains are its own
        torch.set_num_threads(1)
    manager = PlansManager(plans)
    settings = manager.get_configuration(next(iter(plans["configurations"])))
    name, (images, mask) = item
    if kind is not None:
        kind.check(name, _facts(manager, images))
    scratch = folder / f".{name}.partial"
    scratch.mkdir(exist_ok=True)
    try:
        preprocessor = settings.preprocessor_class(verbose=False)
        label = None if mask is None else str(mask)
        preprocessor.run_case_save(
            str(scratch / name), [str(image) for image in images], label, manager, settings, dataset
        )
        for file in sorted(scratch.iterdir(), key=lambda f: f.suffix == ".pkl"):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
