"""A device that is none: its tensors are computed on the CPU, and whatever would wait for a GPU is counted.

As on a GPU, an operation on tensors of both the host and the device is an error; so is one on a tensor that
``torch.tensor(values, device=device)`` made, a copy that can be neither seen nor counted.
"""

from collections import Counter
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("meta")  # a device that torch knows without hardware; no tensor of its own is ever made
COPY = torch.ops.aten.copy_.default
WAITS = {
    "_local_scalar_dense",  # item, bool, int
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
    "equal",
    "is_nonzero",
    "_coalesce",
}
"""Operations whose result the host needs, or whose size depends on values."""


class RemoteTensor(Tensor):
    """A tensor of the device.

    Attributes:
        held: its values, on the CPU.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "RemoteTensor":
        return Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class RemoteDevice(TorchDispatchMode):
    """While it is entered, tensors can be made on `DEVICE`, and waits are counted.

    Args:
        lacks: name of an operation that the device does not have.

    Attributes:
        to_host: waits for the device: copies from it, and operations of `WAITS`, by name.
        to_device: copies of the host's tensors to the device.
    """

    def __init__(self, lacks: str = "") -> None:
        super().__init__()
        self.lacks = lacks
        self.to_host: Counter[str] = Counter()
        self.to_device = 0

    def __enter__(self) -> "RemoteDevice":
        on_cpu = torch.autocast  # the device has none of its own
        self._autocast = patch("torch.autocast", lambda _, **options: on_cpu("cpu", **options))
        self._autocast.start()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._autocast.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = func.overloadpacket.__name__, any(map(is_remote, tree_iter((args, kwargs))))
        if given and name == self.lacks:
            raise NotImplementedError(f"The operator 'aten::{name}' is not implemented for the device.")
        found = computed(func, args, kwargs or {})
        if name == "_to_copy":
            self.to_device += is_remote(found) and not given
        if func is COPY:
            self.to_device += is_remote(args[0]) and not is_remote(args[1])
        read = name == "_to_copy" and not is_remote(found)
        masked = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if given and (read or masked or name in WAITS):
            self.to_host[name] += 1
        return found


def is_remote(value: Any) -> bool:
    return isinstance(value, RemoteTensor)


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of an operation, on the device where its tensors are or where it is asked for."""
    tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
    there = any(map(is_remote, tensors))
    mixed = there and func is not COPY and any(tensor.ndim and not is_remote(tensor) for tensor in tensors)
    assert not mixed, f"{func} of tensors of host and device"
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    own = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, RemoteTensor)}
    return tree_map(lambda value: _remote(value, own), found) if there else found


def remote(value: Tensor) -> Tensor:
    """A copy on the device, outside of the count."""
    return RemoteTensor(value.detach().clone()).requires_grad_(value.requires_grad)


def move(module: nn.Module) -> None:
    """Move parameters and buffers to the device, outside of the count."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            part._parameters[name] = nn.Parameter(RemoteTensor(parameter.detach().clone()))
        for name, buffer in part._buffers.items():
            part._buffers[name] = remote(buffer)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, RemoteTensor) else value


def _remote(value: Any, own: dict[int, RemoteTensor]) -> Any:
    """The tensor on the device; that of an operation in place is the one it changed."""
    if not isinstance(value, Tensor):
        return value
    return own[id(value)] if id(value) in own else RemoteTensor(value)
