"""What tests of predictions share."""

import json
from pathlib import Path

import numpy as np
import SimpleITK
import torch

from ccdcseg.nnunet.checkpoints import FINAL, load_checkpoint


def read_voxels(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def change_plans(folder: Path, **entries: object) -> None:
    path = folder.parent / "plans.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_checkpoint(folder: Path, **entries: object) -> None:
    torch.save(load_checkpoint(folder / FINAL) | entries, folder / FINAL)
