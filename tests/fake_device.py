"""A device that this machine does not have, to test where values are and what is transferred.

Tensors `OnDevice` compute on the CPU, but belong to the device `meta`, as PyTorch calls it: an
operation that mixes them with tensors of the host fails as on an accelerator, and every transfer is
recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
BY_INDEX = {
    aten.index.Tensor, aten.index_put_.default, aten.index_put.default,
    aten._index_put_impl_.default,
}  # fmt: skip
"""Operations on the device whose indices may come from the host."""
SCALAR = {aten._local_scalar_dense.default, aten.equal.default}


@dataclass
class Transfers:
    """Numbers of elements of every transfer."""

    to_host: list[int] = field(default_factory=list)
    to_device: list[int] = field(default_factory=list)
    bytes_to_device: int = 0
    scalars: int = 0
    """Single numbers that the host waits for."""


class OnDevice(torch.Tensor):
    """A tensor of the device."""

    held: torch.Tensor
    transfers: Transfers

    @staticmethod
    def __new__(cls, held: torch.Tensor, transfers: Transfers) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=DEVICE, requires_grad=False,
        )  # fmt: skip

    def __init__(self, held: torch.Tensor, transfers: Transfers) -> None:
        self.held, self.transfers = held, transfers

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.held!r})"

    def tolist(self) -> Any:
        self.transfers.to_host.append(self.numel())
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise AssertionError("a tensor of the device is read as a NumPy array")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a tensor of the device is read as a NumPy array")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        transfers = next(
            x.transfers for x in tree_flatten((args, kwargs))[0] if isinstance(x, OnDevice)
        )
        return run(func, args, dict(kwargs or {}), transfers)


def run(func: Any, args: Any, kwargs: dict[str, Any], transfers: Transfers) -> Any:
    """Run an operation; its result is on the device if its inputs or its `device` are."""
    values = tree_flatten((args, kwargs))[0]
    there = [x for x in values if isinstance(x, OnDevice)]
    here = [x for x in values if isinstance(x, torch.Tensor) and not isinstance(x, OnDevice)]
    target = kwargs.get("device")
    on_device = bool(there)
    if target is not None:
        on_device = torch.device(target).type == DEVICE.type
        kwargs["device"] = torch.device("cpu")
    if func in SCALAR and there:
        transfers.scalars += 1
        on_device = False
    elif target is not None and there and not on_device:
        transfers.to_host.append(there[0].numel())
    elif target is not None and here and on_device:
        transfers.to_device.append(here[0].numel())
        transfers.bytes_to_device += here[0].nbytes
    elif func is aten.copy_.default and here and there:
        moved = transfers.to_host if isinstance(args[1], OnDevice) else transfers.to_device
        moved.append(args[1].numel())
        if moved is transfers.to_device:
            transfers.bytes_to_device += args[1].nbytes
        on_device = isinstance(args[0], OnDevice)
    elif there and any(x.dim() > 0 for x in here):
        allowed = func in BY_INDEX and isinstance(args[0], OnDevice)
        assert allowed, f"{func} mixes tensors of the host and of the device"

    def held(x: Any) -> Any:
        return x.held if isinstance(x, OnDevice) else x

    out = func(*tree_map(held, args), **tree_map(held, kwargs))
    known = {id(x.held): x for x in there}  # results of operations in place

    def placed(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not on_device:
            return x
        if id(x) in known:
            return known[id(x)]
        return OnDevice(x, transfers)

    result = tree_map(placed, out)
    if func is aten.copy_.default:
        return args[0]
    return result


class _Factories(TorchDispatchMode):
    """Sends what is made on the device, or comes to it, through `run`."""

    def __init__(self, transfers: Transfers) -> None:
        super().__init__()
        self.transfers = transfers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, dict(kwargs or {}), self.transfers)


class _Constants(TorchFunctionMode):
    """`torch.tensor(..., device=...)`, which no dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and "device" in kwargs:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


@contextmanager
def fake_device() -> Iterator[Transfers]:
    """What is on DEVICE within is a tensor `OnDevice`; yields the record of all transfers."""
    transfers = Transfers()
    with _Constants(), _Factories(transfers):
        yield transfers
