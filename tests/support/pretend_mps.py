"""A device that calls itself `mps` and has no float64, on any machine: to be judged on.

The numbers of its tensors are on the CPU. What PyTorch refuses on Apple's device is refused here in
the same words: float64 tensors, and operations whose tensors are on two devices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

MPS, CPU = torch.device("mps"), torch.device("cpu")
NO_FLOAT64 = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it."
TWO_DEVICES = "Expected all tensors to be on the same device, but found at least two: mps:0 and cpu"
MOVES = ("_to_copy", "copy_", "_local_scalar_dense", "index", "index_put_")


class OnMps(Tensor):
    """A tensor there; `there` holds its numbers."""

    @staticmethod
    def __new__(cls, there: Tensor) -> "OnMps":
        if there.dtype == torch.float64:
            raise TypeError(NO_FLOAT64)
        made = {"dtype": there.dtype, "device": CPU, "strides": there.stride()}
        made |= {"storage_offset": there.storage_offset(), "requires_grad": there.requires_grad}
        return Tensor._make_wrapper_subclass(cls, there.shape, **made)

    def __init__(self, there: Tensor):
        self.there = there

    def __repr__(self) -> str:
        return f"OnMps({self.there})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["there"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: object) -> "OnMps":
        return OnMps(parts["there"])

    @property
    def device(self) -> torch.device:
        return MPS  # PyTorch itself believes it to be on the CPU, and asks no such device anything

    def cpu(self, **_: object) -> Tensor:
        return self.there.clone()

    def tolist(self) -> list:
        return self.there.tolist()

    def to(self, *args: object, **kwargs: object) -> Tensor:
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if args and isinstance(args[0], Tensor):
            device, dtype = args[0].device, args[0].dtype
        if dtype == torch.float64:
            raise TypeError(NO_FLOAT64)
        found = self.there.to(dtype or self.dtype)
        if device is not None and device.type != "mps":
            return found.clone()
        return self if found is self.there else OnMps(found)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def numbers(given: Any) -> Any:
    return tree_map(lambda x: x.there if isinstance(x, OnMps) else x, given)


def run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the numbers; what it makes is there, if that is where it was asked."""
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    name = func._schema.name.split("::")[-1]
    here = [x for x in given if not isinstance(x, OnMps)]
    if any(x.dim() for x in here) and len(here) < len(given) and name not in MOVES:
        raise RuntimeError(TWO_DEVICES)
    asked = kwargs.get("device")
    there = asked.type == "mps" if asked is not None else len(here) < len(given)
    if name == "copy_":
        there = isinstance(args[0], OnMps)
    if any(x == torch.float64 for x in tree_leaves((args, kwargs))) and (
        there or len(here) < len(given)
    ):
        raise TypeError(NO_FLOAT64)
    plain = numbers((args, kwargs))
    if asked is not None:
        plain[1]["device"] = CPU
    found = func(*plain[0], **plain[1])
    if not there:
        return found
    known = {id(x.there): x for x in given if isinstance(x, OnMps)}  # changed in place

    def made(x: object) -> object:
        return known[id(x)] if id(x) in known else OnMps(x) if isinstance(x, Tensor) else x

    return tree_map(made, found)


class Factories(TorchDispatchMode):
    """Makes the tensors that are asked for on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        asked = (kwargs or {}).get("device")
        if asked is not None and asked.type == "mps":
            return run(func, args, kwargs)
        return func(*args, **(kwargs or {}))


class Generator(torch.Generator):
    """Random numbers for any device are those of the CPU."""

    def __new__(cls, device: object = None) -> "Generator":
        return super().__new__(cls)


class Moving(TorchFunctionMode):
    """Moves what is moved to the device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is Tensor.to and not isinstance(args[0], OnMps):
            other = args[1] if len(args) > 1 and isinstance(args[1], OnMps) else None
            wanted = [other.device, other.dtype] if other is not None else args[1:]
            device, dtype, *_ = torch._C._nn._parse_to(*wanted, **kwargs)
            if device is not None and device.type == "mps":
                return OnMps(args[0].detach().to(dtype or args[0].dtype).clone())
        return func(*args, **kwargs)


@contextmanager
def pretend_mps() -> Iterator[torch.device]:
    """Inside, tensors and models can be moved to the device that is returned."""
    swap, generator = torch.__future__.get_swap_module_params_on_conversion(), torch.Generator
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.Generator = Generator
    try:
        with Factories(), Moving():
            yield MPS
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)
        torch.Generator = generator
