"""The cores that this process may use, and what they can compute with."""

import os
from collections.abc import Iterator
from pathlib import Path

WORKERS = "nnUNet_def_n_proc"
"""The environment variable by which a user says how many worker processes there are."""
THREADS = "OMP_NUM_THREADS"
"""The environment variable by which a user says how many threads compute."""


def usable_cores() -> int:
    """Cores of the affinity, no more than control groups and SLURM allow: whole ones, and at least one."""
    return max(1, int(min([_affinity(), *_quotas(Path("/")), *_allocation()])))


def worker_count() -> int:
    """Worker processes where no number is given: what ``nnUNet_def_n_proc`` says, or one for each usable core."""
    count = os.environ.get(WORKERS, "")
    return int(count) if count.isdecimal() and int(count) else usable_cores()


def requested_threads() -> int | None:
    """What ``OMP_NUM_THREADS`` says of the outermost threads; None where it says nothing."""
    first = os.environ.get(THREADS, "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def keep_to_cores() -> None:
    """Let PyTorch use no more threads than there are usable cores, unless the user asked for a number."""
    import torch  # noqa: PLC0415 - slow

    if requested_threads() is None:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 by itself; without, bfloat16 is slower than float32."""
    import torch  # noqa: PLC0415 - slow

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _allocation() -> Iterator[int]:
    """Cores of the SLURM job that this process is of."""
    cores = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if cores.isdecimal():
        yield int(cores)


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group around this process has, those without a limit left out.

    Args:
        root: of the file system.
    """
    for folder in _control_groups(root):
        quota, period = _limit(folder)
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def _control_groups(root: Path) -> Iterator[Path]:
    """Folders of this process's groups, of both versions of control groups, and of all around them."""
    mounts = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = mounts / controllers if controllers else mounts
        group = Path(path.lstrip("/"))
        yield from (mount / part for part in (group, *group.parents))


def _limit(folder: Path) -> tuple[str, str]:
    """Quota and period as a group's files name them, in microseconds."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not period:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota.strip(), period.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
