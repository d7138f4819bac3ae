"""How an answer that is a class is judged: sizes, weights and inputs drawn, the course's beside."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .common import is_stub, load_weights, raised
from .inputs import shown
from .judged import Answer, backwards


@dataclass(frozen=True)
class Use:
    """A module of certain sizes, with random weights (by `seed`), and what it is called with."""

    name: str
    sizes: dict[str, int | float]
    args: tuple
    seed: int = 0
    training: bool = False
    dtype: torch.dtype = torch.float64

    def __str__(self) -> str:
        sizes = ", ".join(f"{name}={value}" for name, value in self.sizes.items())
        dot, _, method = self.name.partition(".")
        args = ", ".join(map(shown, self.args))
        return f"{dot}({sizes}){'.' * bool(method)}{method}({args})"


def made(module_class: type[nn.Module], reference_class: type[nn.Module], use: Use) -> nn.Module:
    """A module of that class with the weights of the use.

    Raises AssertionError if its parameters are not those of the reference.
    """
    reference = reference_class(**use.sizes).to(use.dtype)
    generator = torch.Generator().manual_seed(use.seed)
    with torch.no_grad():
        for _, parameter in sorted(reference.named_parameters()):
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn * (1.0 if parameter.dim() == 1 else parameter.size(-1) ** -0.5))
    if module_class is reference_class:
        return reference.train(use.training)
    module = constructed(module_class, use.sizes).to(use.dtype)
    load_weights(module, reference)
    return module.train(use.training)


def constructed(module_class: type[nn.Module], sizes: dict[str, int | float]) -> nn.Module:
    """A module of these sizes. An error becomes a sentence."""
    try:
        return module_class(**sizes)
    except Exception as error:
        if is_stub(error):
            raise
        given = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise AssertionError(f"Making one with {given} {raised(error)}.") from error


def using(
    module_class: type[nn.Module],
    reference_class: type[nn.Module],
    method: str = "forward",
    result: Callable[[object], object] = lambda found: found,
) -> Answer:
    """The answer to a `Use`: what the module, or that method of it, returns; it changes nothing.

    `result` picks what is compared. An error becomes a sentence.
    """

    def answer(use: Use) -> object:
        module = made(module_class, reference_class, use)
        before = copy.deepcopy(module.state_dict())
        own = copy.deepcopy(use.args)
        found = _call(module, method, own)
        for mine, theirs in zip(own, use.args, strict=True):
            if isinstance(mine, Tensor) and not torch.equal(mine, theirs):
                raise AssertionError("changes a tensor that came in; work on a new one")
        for name, weight in module.state_dict().items():
            if not torch.equal(weight, before[name]):
                raise AssertionError(f"changes its parameter {name} when it is called")
        return result(found)

    return answer


def learning(
    module_class: type[nn.Module],
    reference_class: type[nn.Module],
    result: Callable[[object], object] = lambda found: found,
) -> Answer:
    """The answer to a `Use`: the gradient of each parameter and floating-point argument."""

    def answer(use: Use) -> object:
        module = made(module_class, reference_class, use)
        own = copy.deepcopy(use.args)
        leaves = dict(module.named_parameters())
        for number, x in enumerate(own, 1):
            if isinstance(x, Tensor) and x.is_floating_point():
                leaves[f"argument {number}"] = x.requires_grad_()
        found = result(_call(module, "forward", own))
        if not isinstance(found, Tensor) or not found.requires_grad:
            raise AssertionError("gives a result that has no gradient, so nothing would be learned")
        weighting = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)
        total = (found * weighting).sum()
        grads = backwards(total, list(leaves.values()))
        return {
            f"the gradient of {name}": torch.zeros_like(leaf) if x is None else x
            for (name, leaf), x in zip(leaves.items(), grads, strict=True)
        }

    return answer


def _call(module: nn.Module, method: str, args: tuple) -> object:
    try:
        return (module if method == "forward" else getattr(module, method))(*args)
    except Exception as error:
        if is_stub(error):
            raise
        raise AssertionError(raised(error)) from error
