"""Commands in processes of their own that start warm: what they all import is imported once, then each is a fork.

    python commands.py SOCKET

What a page is not run with word for word is done here, and nowhere else:

- the preset ``cpu``, and nnU-Net's own plans, train two steps of a tiny network;
- nnU-Net's pools of worker processes are threads, its validation after a training and what ``hurried.py`` names are
  left out, and its commands are told ``-device cpu``.
"""

import json
import multiprocessing.context
import os
import runpy
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from multiprocessing.pool import ThreadPool
from pathlib import Path
from unittest.mock import patch

from hurried import hurry

WARM = (
    "torch", "torch._dynamo", "numpy", "scipy.ndimage", "scipy.stats", "SimpleITK", "nibabel", "skimage.measure",
    "matplotlib.figure", "batchgenerators.utilities.file_and_folder_operations", "batchgeneratorsv2", "pandas",
    "seaborn", "sklearn.model_selection", "dynamic_network_architectures.architectures.unet", "blosc2", "pydantic",
    "highdicom", "jinja2", "rich.console", "typer",
)  # fmt: skip
TRAINING = {
    "epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1, "checkpoint_every": 1,
    "augmentation": "nnunet", "augmentation_processes": 0,
}  # fmt: skip
SMALL = {
    "network": {
        "configuration": "2d", "features_per_stage": [4, 8, 8], "patch_size": [64, 64], "spacing_mm": [3.0, 3.0],
        "batch_size": 3,
    },
    "training": TRAINING,
    "prediction": {"mirroring": False},
    "unlabelled": {"times": 1},
    "ccdc": {"queries": 32, "negatives": 32, "core_threshold": 0.2, "hidden_channels": 16, "embedding_channels": 8},
}  # fmt: skip


def serve(place: str) -> None:
    """Run what comes in, one command after the other, until nobody asks any more."""
    for name in WARM:
        import_module(name)
    hurry()
    server = socket.socket(socket.AF_UNIX)
    server.bind(place)
    server.listen()
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            message, streams, *_ = socket.recv_fds(connection, 2**20, 3)
            process = os.fork()
            if process == 0:
                server.close()
                _be(*json.loads(message), streams)
            for stream in streams:
                os.close(stream)
            connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])).encode())


def _be(words: list[str], variables: dict[str, str], folder: str, streams: list[int]) -> None:
    """Become the command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    name = Path(words[0]).name
    sys.argv = [name, *words[1:]]
    code: object = 0
    try:
        if name.startswith("nnUNet"):
            _nnunet(name, variables)
        else:
            _ours(name)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _ours(name: str) -> None:
    """``ccdcseg``, or a script of a page."""
    from ccdcseg.nnunet import preset

    read = preset._read

    def small(name: str) -> tuple[dict[str, object], str]:
        return (json.loads(json.dumps(SMALL)), name) if name == "cpu" else read(name)

    with patch.object(preset, "_read", small):
        if name == "ccdcseg":
            import_module("ccdcseg.cli").main()
        else:
            runpy.run_path(sys.argv[1], run_name="__main__")


def _nnunet(name: str, variables: dict[str, str]) -> None:
    command: Callable[[], None] = next(iter(entry_points(group="console_scripts", name=name))).load()
    if name in ("nnUNetv2_train", "nnUNetv2_predict"):
        sys.argv += ["-device", "cpu"]
    threads = lambda self, processes=None, *_, **__: ThreadPool(min(processes or 2, 2))  # noqa: E731
    with patch.object(multiprocessing.context.SpawnContext, "Pool", threads):
        if name == "nnUNetv2_train":
            trainer = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer").nnUNetTrainer
            trainer.perform_actual_validation = lambda *_: None
        command()
    if name == "nnUNetv2_plan_and_preprocess":
        for plans in Path(variables["nnUNet_preprocessed"]).glob("*/nnUNetPlans.json"):
            _make_small(plans)


def _make_small(path: Path) -> None:
    plans = json.loads(path.read_text())
    plans["ccdcseg"] = {"training": TRAINING}
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            arguments = configuration["architecture"]["arch_kwargs"]
            arguments["features_per_stage"] = [4] * arguments["n_stages"]
            configuration["batch_size"] = 2
            configuration["patch_size"] = [min(size, 64) for size in configuration["patch_size"]]
    path.write_text(json.dumps(plans))


if __name__ == "__main__":
    serve(sys.argv[1])
