"""From a preset to nnU-Net plans, and the preprocessing they ask for."""

import multiprocessing
import pickletools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ccdcseg.datasets.cases import id_in_name, read_channels
from ccdcseg.datasets.raw_folder import case_files, case_names
from ccdcseg.datasets.splits import SPLITS_FILE, UnlabelledSplit, read_entries, unread_cases
from ccdcseg.datasets.unlabelled import Kind, ScanFacts
from ccdcseg.datasets.usable import READER, check_cases, check_reader, check_scan
from ccdcseg.datasets.volumes import slice_axis
from ccdcseg.errors import UserError
from ccdcseg.files import (
    explain_failure,
    file_hash,
    holds_json,
    json_hash,
    keep_rights,
    locked,
    read_json,
    write_bytes,
    write_json,
)
from ccdcseg.interrupts import undone
from ccdcseg.nnunet.allowed import check_plans
from ccdcseg.nnunet.preset import Network, Preset, stored_form
from ccdcseg.nnunet.splits_copy import OTHERS_FOLDS
from ccdcseg.processes import Progress, pool_map
from ccdcseg.provenance import (
    PLACE,
    Source,
    Sources,
    Stamp,
    forget_origin,
    put_json,
    read_origin,
    stamp,
    write_origin,
)

UNLABELLED_SUFFIX = "_unlabelled"
"""Of the folder of preprocessed scans without masks, which lie apart from those of the same plans with masks."""
Scan = tuple[Sequence[Path], Path | None]
"""Images of a scan, one a channel, and its mask; None: it has none, or it is not to be read."""
BASE_PLANS = "nnUNetPlans.json"
_WITHOUT_INTENSITIES = {
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
}
"""nnU-Net's normalisations that look at the scan itself alone."""


def base_plans(raw: Path, preprocessed: Path, processes: int = 2) -> dict[str, Any]:
    """nnU-Net's own plans of a dataset, made by its fingerprint extractor and planner where they are not there.

    Planning reads spacing, shape and intensities of every case in ``imagesTr``, the test cases among them, but for
    cases whose masks the splits leave unread. Plans that were made here are made again when a scan or
    ``dataset.json`` has changed; plans of nnU-Net's own commands are kept. In a folder that was copied or renamed
    they name another data set, among whose results nnU-Net would train: here they always name this one.

    Raises:
        UserError: ``dataset.json`` asks for another reader (see `check_reader`), nnU-Net cannot use a scan (see
            `check_cases`), or plans that are there name code that is not nnU-Net's or another reader, slice into
            lines, or were made for other channels.
    """
    path = preprocessed / BASE_PLANS
    check_reader(raw)
    sources = _planning_sources(raw)
    origin = read_origin(path, sources) if path.exists() else None
    if not path.exists() or (
        origin and origin.intact and (origin.changed or _is_in_other_order(read_json(path), raw))
    ):
        now = stamp(sources)
        path.unlink(missing_ok=True)
        write_origin(path, now)
        _plan(raw, processes)
        write_origin(path, now, path)
    plans: dict[str, Any] = read_json(path)
    check_plans(plans, path)
    _check_reader(path, plans)
    _check_slices(path, plans)
    _check_channels(path, plans, raw)
    return {**plans, "dataset_name": raw.name}


def _is_in_other_order(plans: Mapping[str, Any], raw: Path) -> bool:
    """Whether plans that were made here normalise a channel as another: in order of a text that was mended since.

    The hash of ``dataset.json`` knows nothing of the order in it.
    """
    today = normalisations(read_channels(raw))
    return any(scheme != today for scheme in _schemes(plans))


def _schemes(plans: Mapping[str, Any]) -> list[Sequence[str]]:
    """The normalisations of the channels, of each configuration that names them."""
    key = "normalization_schemes"
    return [one[key] for one in plans["configurations"].values() if key in one]


def normalisations(channels: Iterable[str]) -> list[str]:
    """nnU-Net's normalisation of channels, by their names alone."""
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (  # noqa: PLC0415 - slow
        get_normalization_scheme,
    )

    return [str(get_normalization_scheme(channel).__name__) for channel in channels]


def _planning_sources(raw: Path) -> Sources:
    folders = {"images": raw / "imagesTr", "masks": raw / "labelsTr"}
    scans = {
        name: Source(
            tuple(path for path in folder.iterdir() if not (path.name.startswith(".") or path.is_dir()))
        )
        for name, folder in folders.items()
    }
    return {**scans, "dataset.json": Source(settings=read_json(raw / "dataset.json"))}


def _plan(raw: Path, processes: int) -> None:
    from ccdcseg.nnunet.planner import plan  # noqa: PLC0415 - slow

    unread = unread_cases(raw)
    cases = [case for case in case_names(raw) if case not in unread]
    check_cases(raw, cases, processes)
    plan(raw.name, cases, processes)


def _check_reader(path: Path, plans: Mapping[str, Any]) -> None:
    """Refuse plans of nnU-Net's own commands, or of a ``dataset.json`` of before, that name another reader."""
    if (name := plans.get("image_reader_writer", READER)) != READER:
        raise UserError(
            f"{path} names {name} as image_reader_writer: trainings read scans with {READER} alone.",
            "Move it away: it is then made otherwise.",
        )


def _check_slices(path: Path, plans: dict[str, Any]) -> None:
    """Refuse plans of nnU-Net's own commands that slice scans of one slice across that slice's rows."""
    shape = plans.get("original_median_shape_after_transp", ())
    if 1 in shape and slice_axis(shape, plans["original_median_spacing_after_transp"]) != 0:
        raise UserError(
            f"{path} slices scans of one slice into lines, since their pixels are larger than their thickness.",
            "Move it away: it is then made otherwise.",
        )


def _check_channels(path: Path, plans: Mapping[str, Any], raw: Path) -> None:
    """Refuse plans of nnU-Net's own commands that were made for other channels than those of today.

    nnU-Net puts the description that it planned by beside them. Normalisations that differ from that, too, were
    chosen by somebody, and stay.
    """
    described = path.with_name("dataset.json").exists()
    today = normalisations(read_channels(raw))
    planned = normalisations(read_channels(path.parent)) if described else today
    for scheme in _schemes(plans):
        if len(scheme) != len(today) or scheme == planned != today:
            raise UserError(
                f"{path} was made for other channels than {raw / 'dataset.json'} has: it names "
                f"{', '.join(scheme)}, and these want {', '.join(today)}.",
                f"Move it away and plan again: nnUNetv2_plan_and_preprocess -d {id_in_name(raw.name)} --clean",
            )


def preset_plans(base: dict[str, Any], name: str, preset: Preset) -> dict[str, Any]:
    """nnU-Net's plans with the preset's network, and the preset itself under the key "ccdcseg".

    Args:
        base: nnU-Net's plans; in the form of its first versions, or with configurations that inherit, too.
        name: under which they are stored; nnU-Net's users give it as ``-p``.
        preset: what to change.

    Raises:
        UserError: the preset's network does not fit its patch, or the dataset; its batch is too small.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415 - slow

    wanted = preset.network
    if wanted.configuration not in base["configurations"]:
        raise UserError(
            f"nnU-Net made no {wanted.configuration} configuration for {base['dataset_name']}.",
            f"Set network.configuration to one of {', '.join(base['configurations'])}.",
        )
    configuration = PlansManager(base).get_configuration(wanted.configuration).configuration
    configuration.pop("inherits_from", None)
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
    if preset.unlabelled.use:
        preset.unlabelled.patches(configuration["batch_size"])
    if wanted.spacing_mm is not None:
        configuration["spacing"] = list(wanted.spacing_mm)
    if wanted.patch_size is not None or wanted.features_per_stage is not None:
        _replace_architecture(configuration, wanted)
    configuration["data_identifier"] = _data_identifier(wanted.configuration, configuration)
    return {
        **deepcopy(base),
        "plans_name": name,
        "ccdcseg": stored_form(preset),
        "configurations": {wanted.configuration: configuration},
    }


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
    for key in ("n_conv_per_stage", "n_blocks_per_stage"):
        if key in arguments:
            arguments[key] = _resized(arguments[key], stages)
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
    return f"ccdcseg_{name}_{json_hash(_preprocessing_keys(configuration))[:8]}"


def _preprocessing_keys(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration preprocessing reads."""
    keys = ("spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name")
    resampling = {k: v for k, v in configuration.items() if k.startswith("resampling")}
    return {**{k: configuration[k] for k in keys}, **resampling}


def plans_hash(plans: Mapping[str, Any]) -> str:
    """A hash that plans share if they make the same networks of the same input.

    The preset's settings of the training are not in it.
    """
    networks = {
        name: {k: v for k, v in configuration.items() if k != "median_image_size_in_voxels"}
        for name, configuration in plans["configurations"].items()
    }
    return json_hash([networks, _input_settings(plans)])


def _input_settings(plans: Mapping[str, Any]) -> dict[str, Any]:
    """What of the plans, beside a configuration, changes the input; old plans lack some of it."""
    schemes = [c.get("normalization_schemes", ()) for c in plans["configurations"].values()]
    alone = all(_WITHOUT_INTENSITIES.issuperset(names) for names in schemes)
    first, today = (f"foreground_intensity_properties_{name}" for name in ("by_modality", "per_channel"))
    intensities = None if alone else plans.get(today, plans.get(first))
    names = ("transpose_forward", "image_reader_writer", "label_manager")
    return {**{name: plans.get(name) for name in names}, "intensities": intensities}


def check_stored(name: str, raw: Path, preprocessed: Path) -> None:
    """See that `store_plans` overwrites nothing of somebody else.

    Args:
        name: of the plans.
        raw: the data set's folder in ``nnUNet_raw``.
        preprocessed: that in ``nnUNet_preprocessed``.

    Raises:
        UserError: plans of that name, or splits, are there that were not made here or were changed since; a copy of
            the splits of today is welcome.
    """
    plans, splits = preprocessed / f"{name}.json", preprocessed / SPLITS_FILE
    if plans.exists() and "ccdcseg" not in read_json(plans):
        raise UserError(
            f"{plans} was not made by ccdcseg.", "Move it away, or give your preset another name."
        )
    if splits.exists():
        read_entries(splits, OTHERS_FOLDS)
    for path in (plans, splits):
        origin = read_origin(path, {}) if path.exists() else None
        if origin is None or origin.intact:
            continue
        if path == plans or file_hash(path) != file_hash(raw / SPLITS_FILE):
            raise UserError(f"{path} was changed since ccdcseg wrote it.", "Move it away, then train again.")


def store_plans(plans: dict[str, Any], raw: Path, preprocessed: Path) -> None:
    """Put plans, dataset.json and splits where nnU-Net looks for them, and are not yet; see `check_stored`."""
    contents = {f"{plans['plans_name']}.json": plans, SPLITS_FILE: read_json(raw / SPLITS_FILE)}
    for name, content in contents.items():
        put_json(preprocessed / name, content)
    description = read_json(raw / "dataset.json")
    if not holds_json(preprocessed / "dataset.json", description):
        write_json(preprocessed / "dataset.json", description)


def preprocess(
    cases: Iterable[str],
    raw: Path,
    preprocessed: Path,
    plans: dict[str, Any],
    processes: int,
    progress: Progress,
) -> None:
    """Preprocess the cases a training needs with nnU-Net's preprocessor; those that would be the same are kept."""
    dataset = read_json(raw / "dataset.json")
    scans: dict[str, Scan] = {}
    for case in cases:
        *images, mask = case_files(raw, case)
        scans[case] = images, mask
        _copy(mask, preprocessed / "gt_segmentations" / mask.name)
    preprocess_scans(scans, preprocessed_folder(preprocessed, plans), plans, dataset, processes, progress)


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
    kind: Callable[[], Kind] | None = None,
) -> None:
    """Preprocess scans with nnU-Net's preprocessor; those that would be the same are kept.

    The folder is held meanwhile: trainings started side by side would remove each other's half-written files.

    Args:
        scans: by name.
        folder: where they go.
        plans: with one configuration.
        dataset: content of ``dataset.json``.
        processes: of the pool.
        progress: called with scans done and scans to do.
        kind: gives what they have to be like; None: they may be anything.

    Raises:
        UserError: a scan is not of the kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not _outdated(scans, folder, plans, dataset):
        return
    with locked(folder / PLACE, "train", wait=True):  # nnU-Net takes every file of the folder itself for data
        outdated = _outdated(scans, folder, plans, dataset)  # less, where another process was waited for
        wanted = kind() if kind and outdated else None
        one = partial(_preprocess_scan, plans=plans, dataset=dataset, kind=wanted)
        items = [(folder / name, scans[name], now) for name, now in outdated.items()]
        pool_map(one, items, processes, progress)


def _outdated(
    scans: Mapping[str, Scan], folder: Path, plans: Mapping[str, Any], dataset: Mapping[str, Any]
) -> dict[str, Stamp]:
    """Scans to be preprocessed, with the hashes of what they are made from."""
    (configuration,) = plans["configurations"].values()
    labels = {key: dataset.get(key) for key in ("labels", "regions_class_order")}
    settings = _preprocessing_keys(configuration) | _input_settings(plans) | labels
    outdated = {}
    for name, (images, mask) in scans.items():
        files = {"images": Source(tuple(images)), "mask": Source((mask,) if mask else ())}
        sources = {**files, "settings": Source(settings=settings)}
        origin = read_origin(folder / name, sources)
        if origin is None or not origin.current or not _is_whole(folder / name):
            outdated[name] = stamp(sources)
    return outdated


def _is_whole(target: Path) -> bool:
    """Whether the files of a preprocessed scan are there, up to their ends.

    Raises:
        OSError: one cannot be read; nnU-Net would not say so.
    """
    try:
        with target.with_name(f"{target.name}.pkl").open("rb") as handle:
            for _ in pickletools.genops(handle):  # reads to the end, and runs nothing of it
                pass
        for array in _arrays(target):
            _open_array(array)
    except (FileNotFoundError, ValueError, RuntimeError):  # the latter of a pickle, of an array that was cut
        return False
    return True


def _arrays(target: Path) -> list[Path]:
    return [target.with_name(f"{target.name}{end}") for end in (".b2nd", "_seg.b2nd")]


def _open_array(file: Path) -> Any:
    """A preprocessed array; only its head and its end are looked at, and what the system refuses is an OSError."""
    import blosc2  # noqa: PLC0415 - slow

    file.open("rb").close()
    return blosc2.open(urlpath=str(file), mode="r")


def check_readable(targets: Iterable[Path]) -> None:
    """Find out why a training failed: see that its preprocessed scans can be read, of which a start sees the ends.

    Those that cannot be are preprocessed again by the next training.

    Args:
        targets: ``FOLDER/NAME`` of each scan.

    Raises:
        UserError: one cannot be read.
    """
    damaged = {array: target for target in targets for array in _arrays(target) if _is_damaged(array)}
    for target in damaged.values():
        forget_origin(target)
    if damaged:
        raise UserError(
            f"{next(iter(damaged))} is damaged ({len(damaged)} such files): check that disk.",
            "Train again, by ccdcseg train with --resume, which preprocesses its scan anew; for nnUNetv2_train do "
            "so by nnUNetv2_preprocess.",
        )


def _is_damaged(array: Path) -> bool:
    """Whether an array is there and cannot be read to its end."""
    try:
        _open_array(array)[:]
    except FileNotFoundError:
        return False
    except (ValueError, RuntimeError):
        return True
    return False


def preprocess_unlabelled(
    split: UnlabelledSplit,
    folder: Path,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    processes: int,
    progress: Progress,
) -> None:
    """Preprocess the scans without masks of a split; those that would be the same are kept.

    Args:
        split: which they are.
        folder, plans, dataset, processes, progress: see `preprocess_scans`.

    Raises:
        UserError: a scan is not of the kind of the annotated ones.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415 - slow

    def kind() -> Kind:
        return Kind(tuple(_facts(PlansManager(plans), images) for images in split.annotated))

    scans: dict[str, Scan] = {name: (images, None) for name, images in split.images.items()}
    preprocess_scans(scans, folder, plans, dataset, processes, progress, kind)


def _facts(manager: Any, images: Sequence[Path]) -> ScanFacts:
    channels, properties = manager.image_reader_writer_class().read_images([str(image) for image in images])
    return ScanFacts.of(channels, properties["spacing"])


def _preprocess_scan(
    item: tuple[Path, Scan, Stamp], plans: dict[str, Any], dataset: dict[str, Any], kind: Kind | None
) -> None:
    """Preprocess one scan; it counts as done when its origin is written down."""
    import torch  # noqa: PLC0415 - slow
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415 - slow

    if multiprocessing.parent_process():  # the threads of the process that trains are its own
        torch.set_num_threads(1)
    manager = PlansManager(plans)
    settings = manager.get_configuration(next(iter(plans["configurations"])))
    target, scan, now = item
    check_scan(*scan, dataset["labels"])
    images, mask = [str(image) for image in scan[0]], str(scan[1]) if scan[1] else None
    channels, properties = manager.image_reader_writer_class().read_images(images)
    check_size(scan[0][0], channels, properties["spacing"], manager, settings)
    if kind is not None:
        kind.check(target.name, ScanFacts.of(channels, properties["spacing"]))
    scratch = target.with_name(f".{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    with undone(partial(shutil.rmtree, scratch, ignore_errors=True)):
        scratch.mkdir()
        preprocessor = settings.preprocessor_class(verbose=False)
        with explaining(target):
            preprocessor.run_case_save(str(scratch / target.name), images, mask, manager, settings, dataset)
        forget_origin(target)
        for file in scratch.iterdir():
            keep_rights(file, target.parent / file.name)
            file.replace(target.parent / file.name)
        write_origin(target, now)


def check_size(
    file: Path, channels: NDArray[Any], spacing_mm: Sequence[float], plans: Any, configuration: Any
) -> None:
    """Refuse a scan of which no voxel is left at the spacing of the network.

    Args:
        file: of its first channel, for the message.
        channels: (C, Z, Y, X).
        spacing_mm: along each axis, as in ``channels``.
        plans: nnU-Net's manager of the plans.
        configuration: nnU-Net's manager of the network's configuration.

    Raises:
        UserError: it is smaller than half a voxel of the network along an axis.
    """
    from acvl_utils.cropping_and_padding.bounding_boxes import get_bbox_from_mask  # noqa: PLC0415 - slow
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape  # noqa: PLC0415 - slow

    box = [end - start for start, end in get_bbox_from_mask((channels != 0).any(axis=0))]
    axes = plans.transpose_forward[-len(configuration.spacing) :]
    shape, spacing = ([values[axis] for axis in axes] for values in (box, spacing_mm))
    if 0 in compute_new_shape(shape, spacing, configuration.spacing):
        own, wanted = (" x ".join(f"{mm:g}" for mm in sizes) for sizes in (spacing_mm, configuration.spacing))
        raise UserError(
            f"{file} has voxels of {own} mm, and is smaller than half a voxel of the network ({wanted} mm).",
            "Correct the spacing in its header, which may be in another unit than mm, or move the scan away.",
        )


@contextmanager
def explaining(target: Path) -> Iterator[None]:
    """Say what the system refused, and of which file, where a library says only that it failed."""
    try:
        yield
    except RuntimeError:
        explain_failure(target)
        raise
    except OSError as error:
        error.filename = error.filename or str(target)
        raise


def _copy(source: Path, target: Path) -> None:
    """Copy a file where it is not there yet, or is another one."""
    if not target.exists() or file_hash(target) != file_hash(source):
        write_bytes(target, source.read_bytes())
