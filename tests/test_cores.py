import os
from pathlib import Path

import pytest
import torch

from ccdcseg import cores


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores without a limit."""
    monkeypatch.setattr(cores, "_affinity", lambda: 8)
    monkeypatch.setattr(cores, "_quotas", lambda root: iter(()))
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    return monkeypatch


def test_the_least_of_affinity_quota_and_allocation_counts(alone: pytest.MonkeyPatch):
    assert cores.usable_cores() == 8
    alone.setenv("SLURM_CPUS_ON_NODE", "4")
    assert cores.usable_cores() == 4
    alone.setattr(cores, "_quotas", lambda root: iter((2.5, 6.0)))
    assert cores.usable_cores() == 2
    alone.setattr(cores, "_quotas", lambda root: iter((0.3,)))
    assert cores.usable_cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_an_affinity_of_one_core_is_one_core():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("group", "files", "quotas"),
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, [1.5]),
        ("0::/", {"cpu.max": "max 100000\n"}, []),
        ("0::/", {}, []),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, [2.0]),
        (
            "4:cpu,cpuacct:/docker/x\n1:memory:/y",  # the group's own path is the host's
            {"cpu,cpuacct/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            [4.0],
        ),
        (
            "4:cpu:/x",
            {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            [],
        ),
        ("nonsense", {"cpu.max": "100000"}, []),
    ],
)
def test_quotas_of_both_versions_of_control_groups(
    group: str, files: dict[str, str], quotas: list[float], tmp_path: Path
):
    for name, text in {
        "proc/self/cgroup": group,
        **{f"sys/fs/cgroup/{k}": v for k, v in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(cores._quotas(tmp_path)) == quotas


def test_a_system_without_control_groups(tmp_path: Path):
    assert list(cores._quotas(tmp_path)) == []


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("", 8), ("0", 8), ("many", 8)])
def test_workers_are_what_nnunet_is_told_or_the_cores(alone: pytest.MonkeyPatch, text: str, count: int):
    alone.setenv("nnUNet_def_n_proc", text)
    assert cores.worker_count() == count


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("4,2", 4), ("", None), ("all", None), ("0", None)])
def test_threads_that_the_user_asked_for(text: str, count: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert cores.requested_threads() == count


def test_torch_keeps_to_the_cores_unless_told(alone: pytest.MonkeyPatch):
    asked: list[int] = []
    alone.setattr(torch, "get_num_threads", lambda: 64)
    alone.setattr(torch, "set_num_threads", asked.append)
    alone.setenv("OMP_NUM_THREADS", "64")
    cores.keep_to_cores()
    alone.delenv("OMP_NUM_THREADS")
    cores.keep_to_cores()
    assert asked == [8]
