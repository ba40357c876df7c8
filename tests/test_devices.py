import pytest
import torch

from ccdcseg.devices import usable_device
from ccdcseg.errors import UserError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    def make(cuda: bool, mps: bool = False, built: str | None = "12.8"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", built)

    return make


@pytest.mark.parametrize(("cuda", "found"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_cuda_gpu_or_the_cpu(machine, cuda: bool, found: str):
    machine(cuda, mps=True)
    assert usable_device("auto") == found
    assert usable_device("cpu") == "cpu"
    assert usable_device("mps") == "mps"


@pytest.mark.parametrize(
    ("wanted", "built", "words"),
    [
        ("cuda", None, "is a build without CUDA"),
        ("cuda", "12.8", "is built for CUDA 12.8"),
        ("mps", None, "no Apple GPU"),
    ],
)
def test_a_device_that_is_not_there(machine, wanted: str, built: str | None, words: str):
    machine(cuda=False, built=built)
    with pytest.raises(UserError, match=words) as caught:
        usable_device(wanted)
    assert "--device cpu" in caught.value.remedy


@pytest.mark.parametrize("wanted", ["cuda:0", "gpu", ""])
def test_a_device_that_nobody_knows(machine, wanted: str):
    machine(cuda=True)
    with pytest.raises(UserError, match=f"no device '{wanted}'"):
        usable_device(wanted)
