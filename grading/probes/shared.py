"""What the probes of all notebooks use: how they draw, and how they print.

All of it runs in the student's kernel. Numbers are printed as multiples of a unit, and the edges
between two multiples lie where no number is that can be worked out by hand: answers written another
way agree. What is drawn at random is printed as shares, so coarsely that the right ones are eight
standard deviations and more away from an edge.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """How to grade one exercise: what it needs, and what to print.

    `needs` names exercises, whose answers by the course come first, and pieces of `graft.piece`.
    `before` is run after them and before the student's answer, `code` after it (`asked`).
    """

    notebook: str
    needs: tuple[str, ...]
    code: str
    before: str = ""


# What an answer may use without importing it.
PREAMBLE = """
import copy
import json
import math
import numbers
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from timeit import default_timer as timer  # torch.utils.benchmark.timer, without its setuptools
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
"""

TOOLS = """
import contextlib as _contextlib
import io as _io
import warnings as _warnings

_warnings.simplefilter("ignore")
torch.set_default_dtype(torch.float32)
torch.set_default_device(None)


def _in_units(values, digits=5):
    # Relative to the largest number, but 0.0001 counts as nothing.
    top = max([1e-4, *(abs(x) for x in values if math.isfinite(x))])
    power = math.ceil(math.log10(top) - 0.1234) - digits
    unit = 10.0**power
    return [power, [math.floor(x / unit + 0.618) if math.isfinite(x) else str(x) for x in values]]


def _plain(x):
    if isinstance(x, Tensor):
        listed = x.detach().flatten().tolist()
        if x.is_floating_point():
            listed = _in_units(listed, 5 if x.dtype == torch.float64 else 2)
        return [str(x.dtype), list(x.shape), listed]
    if isinstance(x, (list, tuple)):
        return [_plain(item) for item in x]
    number = isinstance(x, numbers.Real) and not isinstance(x, bool)
    return _in_units([float(x)]) if number else x


def _quietly(compute):
    quiet = _io.StringIO()
    with _contextlib.redirect_stdout(quiet), _contextlib.redirect_stderr(quiet), torch.no_grad():
        return compute()


def _show(compute):
    print(_quietly(lambda: _plain(compute())))


def _gradients(function, *given, module=None):
    leaves = [x.detach().clone().requires_grad_() for x in given]
    if module is not None:
        leaves += [parameter for _, parameter in sorted(module.named_parameters())]
    with torch.enable_grad():
        found = function(*leaves[: len(given)])
        weights = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)
        grads = torch.autograd.grad((found * weights).sum(), leaves, allow_unused=True)
    pairs = zip(leaves, grads, strict=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in pairs]


class _Far(Tensor):
    # Stands for a tensor of another device. What is made from it is one, too.
    pass


_FAR = torch.device("meta")
_LOOKS = ("item", "tolist", "numpy", "__bool__", "__int__", "__index__", "__float__")


class _Devices(torch.overrides.TorchFunctionMode):
    # Plays that other device, and sees where tensors of two come together.
    mixed = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = getattr(function, "__name__", ""), dict(kwargs or {})
        given = [*args, *kwargs.values()]
        moved = any(isinstance(x, torch.device) and x == _FAR for x in given)
        given += [x for many in given if isinstance(many, (list, tuple)) for x in many]
        far = [isinstance(x, _Far) for x in given if isinstance(x, Tensor) and x.dim()]
        if function == Tensor.device.__get__:
            return _FAR if isinstance(args[0], _Far) else function(*args)
        if True in far and name in _LOOKS:
            raise NotImplementedError("who looks at numbers is not judged")
        a_copy = name in ("to", "type_as", "__getitem__")
        a_copy = a_copy or (name in ("copy_", "__setitem__") and far[:1] == [True])
        self.mixed = self.mixed or (len(set(far)) > 1 and not a_copy)
        if moved:
            args = ["cpu" if isinstance(x, torch.device) else x for x in args]
            kwargs = {key: "cpu" if key == "device" else x for key, x in kwargs.items()}
        found = function(*args, **kwargs)
        return found.as_subclass(_Far) if moved and isinstance(found, Tensor) else found


def _elsewhere(compute):
    with _Devices() as seen:
        try:
            found = _quietly(compute)
        except Exception:
            found = ()
    parts = found if isinstance(found, (list, tuple)) else [found]
    here = any(isinstance(x, Tensor) and not isinstance(x, _Far) for x in parts)
    return "two devices" if seen.mixed or here else "one device"


def _there(x):
    if isinstance(x, Tensor):
        return x.as_subclass(_Far)
    moved = copy.deepcopy(x)
    for part in moved.modules():
        for name, parameter in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(parameter.detach().as_subclass(_Far), False)
    return moved


def _filled(module, generator):
    for _, parameter in sorted(module.named_parameters()):
        drawn = torch.randn(parameter.shape, generator=generator).double()
        parameter.data = drawn * (1 if drawn.dim() == 1 else drawn.size(-1) ** -0.5)
    return module.eval()


def _inputs(module):
    # What comes into a module from now on.
    seen = []

    def see(module, args, named):
        seen.append(args[0] if args else named.get("input_ids", named.get("x")))

    module.register_forward_pre_hook(see, with_kwargs=True)
    return seen


def _dropout(module, part):
    # The share of zeros in what `part` computes, and what training multiplies the others by.
    usual = part()
    module.train()
    drawn = part()
    module.eval()
    kept = drawn != 0
    ratio = (drawn / usual)[kept]
    return [int((~kept).double().mean() / 0.04), ratio.min(), ratio.max()]


def _digest(x):
    # A large tensor in few numbers: sums over all of it.
    flat = x.detach().double().flatten()
    finite, places = flat.isfinite(), torch.arange(flat.numel(), dtype=torch.float64)
    sums = [(flat.masked_fill(~finite, 0.0) * (step * places).cos()).sum() for step in (0.7, 1.9)]
    return [str(x.dtype), list(x.shape), int(finite.sum()), torch.stack(sums)]


def _listed(found):
    parts = found if isinstance(found, (list, tuple)) else [found]
    return [number for x in parts for number in x.detach().double().flatten().tolist()]


def _far_off(found, wanted, within):
    # How many numbers are not those, but for this share of the largest one.
    found, wanted = _listed(found), _listed(wanted)
    most = within * max([abs(x) for x in wanted if math.isfinite(x)])
    pairs = zip(found, wanted, strict=True)
    return len([x for x, y in pairs if x != y and not abs(x - y) <= most])


def _alike(function, *given, dtype=torch.float32, within=1e-3):
    # Whether another dtype gives the same but for rounding, and what was given is as it was.
    floats = [isinstance(x, Tensor) and x.is_floating_point() for x in given]
    low = [x.to(dtype) if is_float else x for x, is_float in zip(given, floats, strict=True)]
    kept = [x.tolist() for x in low if isinstance(x, Tensor)]
    off = _far_off(function(*low), function(*given), within)
    return [off, kept == [x.tolist() for x in low if isinstance(x, Tensor)]]


def _of_both(module):
    # The module, and for what comes in float32 a copy of it in float32.
    low = copy.deepcopy(module).float()
    return lambda x, *more: (low if x.dtype == torch.float32 else module)(x, *more)


def _spread(x):
    # The same numbers, in memory not one beside the other.
    return torch.stack([x, 0 * x], dim=-1)[..., 0]


_random = torch.Generator().manual_seed(SEED)


def _draw(*shape):
    return torch.randn(shape, generator=_random, dtype=torch.float64)


def _whole(low, high):
    return int(torch.randint(low, high, (1,), generator=_random))


def _one_of(*values):
    return values[_whole(0, len(values))]


def _steps(*shape):
    # Numbers that stay exact when a large power of two is added.
    return torch.randint(-2048, 2048, shape, generator=_random).double() / 512
"""


def asked(probe: Probe, seed: int) -> str:
    """The cell that asks an answer: it knows its own names by its own meaning, whatever the
    student has called `max`, `F` or `copy`.
    """
    source = f"{PREAMBLE}{TOOLS.replace('SEED', str(seed))}{probe.code}"
    own = "n: x for n, x in globals().items() if n not in vars(__import__('builtins'))"
    return f"exec({source!r}, {{{own}}} | {{'__name__': 'probe'}})"
