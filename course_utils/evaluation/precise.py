"""Copies of a model that can be compared to nine decimals, and raise what a GPU would not raise.

Every judgement runs on such a copy (notebook 05).
"""

import contextlib
import copy
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from .model import uncached


def copied(model: nn.Module, share_parameters: bool = False) -> nn.Module:
    """A deep copy. What cannot be copied, a lock for instance, it has in common with the model."""
    known = {id(module): object.__new__(type(module)) for module in model.modules()}
    if share_parameters:
        known |= {id(parameter): parameter for parameter in model.parameters()}
    for module in model.modules():
        attributes = {name: _copied(value, known) for name, value in vars(module).items()}
        vars(known[id(module)]).update(attributes)
    return known[id(model)]


def _copied(value: Any, known: dict[int, Any]) -> Any:
    if type(value) in SAME:
        return value
    if isinstance(value, dict | set) and not value:
        return copy.copy(value)
    try:
        return copy.deepcopy(value, known)
    except Exception:
        return value


SAME = {int, float, bool, str, type(None), type, FunctionType}
PLAIN = (int, float, str, tuple, type(None), type, FunctionType, torch.dtype, torch.device)


def state(model: nn.Module) -> list[object] | None:
    """What a model holds, comparable with what it holds later; None if it holds more than numbers,
    names, functions, parameters and buffers."""
    own, found = set(vars(nn.Module())), []
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in own:
                if not isinstance(value, PLAIN):
                    return None
                found.append((name, value))
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            found.append((name, id(tensor), getattr(tensor, "_version", 0)))
    return found


def precise_copy(model: nn.Module) -> tuple[nn.Module, float]:
    """A copy of the model for comparing logits, with the tolerance that its precision allows.

    float64 and 1e-9; on a device without float64 (MPS), or for a model that runs in float32 only,
    float32 and 1e-3. Dropout is off, and missing rows are refused.
    """
    exact, own = _prepared(model), _prepared(model)
    first = next(own.parameters())
    if first.device.type == "mps":
        return own.float(), 1e-3
    with contextlib.suppress(Exception):
        exact = exact.double()
    in_float64 = next(exact.parameters()).dtype == torch.float64 and _runs(exact)
    if first.dtype == torch.float32 and not in_float64 and _runs(own):
        return own, 1e-3
    return exact.double(), 1e-9


def _prepared(model: nn.Module) -> nn.Module:
    model = copied(model).eval()
    refuse_missing_rows(model)
    return model


def _runs(model: nn.Module) -> bool:
    """Does it take a token, without a cache?"""
    token = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    try:
        uncached(copied(model, share_parameters=True), token)
    except Exception:
        return False
    return True


def refuse_missing_rows(model: nn.Module) -> None:
    """Make embeddings raise IndexError on every device when asked for a row that they have not.

    On a CPU they do. An NVIDIA GPU notices it later, in whatever waits for it next, and the process
    can never use the GPU again: a wrong cache would end the judgement of all that come after it.

    Only where a module is called with the rows that it looks up: an embedding with a `forward` of
    its own may take anything, say a tensor for its shape.
    """

    def look(table: nn.Embedding, inputs: tuple[Tensor, ...]) -> None:
        for ids in inputs:
            if not isinstance(ids, Tensor) or ids.numel() == 0 or isinstance(ids, FakeTensor):
                continue
            low, high = ids.aminmax()
            if low < 0 or high >= table.num_embeddings:
                raise IndexError("index out of range in self")

    for module in model.modules():
        if isinstance(module, nn.Embedding) and type(module).forward is nn.Embedding.forward:
            module.register_forward_pre_hook(look)


@contextlib.contextmanager
def refusing_nan(model: nn.Module) -> Iterator[None]:
    """Inside, the model raises RuntimeError rather than return NaN.

    `torch.multinomial` refuses it on a CPU; on an NVIDIA GPU it ends as a missing row does.
    """

    def look(module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Any]) -> None:
        if output[0].isnan().any():
            raise RuntimeError("the logits hold NaN")

    handle = model.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()
