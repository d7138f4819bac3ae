"""Whether dropout is where it should be, whatever it is written with (notebook 02)."""

import torch
from torch import Tensor, nn

from .draws import unlikely
from .inputs import random

DEFAULT = 0.1  # dropout, where it is left out
NEVER_RESTS = (
    "After eval() it gives something else each time: numbers are dropped there, too. nn.Dropout "
    "knows whether the model is trained; F.dropout has to be told, by training=self.training."
)


def dropped(found: Tensor, whole: Tensor, p: float) -> str:
    """How `found` differs from `whole` with dropout, as the end of a sentence, or nothing.

    Each number of `found` (B, T, D, even sizes) is 0, with probability p and independently of the
    others, or 1 / (1 - p) times that of `whole`, where none is 0.
    """
    gone = found.abs() < 1e-9 * whole.abs()
    times = (found / whole)[~gone]
    share, wanted = gone.double().mean().item(), 1 / (1 - p)
    usual = times.median().item() if times.numel() else wanted
    expected = f"expected 0 for {p:.0%} of the numbers, and {wanted:.3g} times the others"
    if torch.isclose(times, torch.ones_like(times)).all() and not gone.any():
        return f"is not dropped: {expected}"
    if not torch.isclose(times, torch.full_like(times, usual)).all():
        return f"is not what dropout makes of it: {expected}"
    if abs(usual - wanted**2) < 1e-6:
        return f"is dropped twice: {expected}"
    if abs(usual - wanted) > 1e-6:
        return f"is 0 for {share:.0%} of the numbers, and {usual:.3g} times the others: {expected}"
    for dim in range(3):
        one, other = (~gone).long().chunk(2, dim)
        if unlikely(torch.bincount((2 * one + other).flatten(), minlength=4), _of_pairs(p)):
            return f"is 0 for {share:.0%} of the numbers, or for whole rows at once: {expected}"
    return ""


def rests(module: nn.Module, x: Tensor, otherwise: str) -> None:
    """Raise AssertionError(otherwise) if a module gives something else each time.

    What else is wrong with it is left to others.
    """
    try:
        one, other = module(x.clone()), module(x.clone())
    except Exception:
        return
    if isinstance(one, tuple) and isinstance(other, tuple):
        one, other = one[0], other[0]
    if isinstance(one, Tensor) and isinstance(other, Tensor) and not torch.equal(one, other):
        raise AssertionError(otherwise)


def layer_drops(layer: nn.Module, p: float) -> None:
    """Raise AssertionError unless a layer drops what each of its parts adds, and nothing else.

    It is asked for one part at a time: the other one adds 0 then.
    """
    attention, feed_forward = layer.attention.W_o, layer.feed_forward.fc2
    x = random(0, 8, 8, attention.weight.size(0), dtype=attention.weight.dtype)
    for part, silent in (("attention", feed_forward), ("the feed-forward part", attention)):
        before = [parameter.detach().clone() for parameter in silent.parameters()]
        with torch.no_grad():
            for parameter in silent.parameters():
                parameter.zero_()
            added, found = layer.eval()(x) - x, layer.train()(x) - x
            for parameter, value in zip(silent.parameters(), before, strict=True):
                parameter.copy_(value)
        if how := dropped(found, added, p):
            raise AssertionError(
                f"With dropout={p}, in training, what {part} adds {how}. Dropout goes on what "
                "each part adds, and nowhere else, with the dropout that was handed in."
            )
    _drops_apart(layer, p)


def _drops_apart(layer: nn.Module, p: float) -> None:
    """Raise AssertionError if what the two parts add is dropped in the same places.

    Here the feed-forward part adds one number everywhere, far from what attention adds.
    """
    last, far = layer.feed_forward.fc2, 1e3
    x = random(0, 8, 8, last.weight.size(0), dtype=last.weight.dtype)
    before = [parameter.detach().clone() for parameter in last.parameters()]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(far)
        added = layer.train()(x) - x
        for parameter, value in zip(last.parameters(), before, strict=True):
            parameter.copy_(value)
    one, other = added.abs() > far / 2, (added - far / (1 - p)).abs() > 1e-6
    other = torch.where(one, other, added.abs() > 1e-6)
    if unlikely(torch.bincount((2 * one + other).flatten(), minlength=4), _of_pairs(p)):
        raise AssertionError(
            f"With dropout={p}, in training, what attention adds and what the feed-forward part "
            "adds are dropped in the same places. Call self.dropout for each."
        )


def _of_pairs(p: float) -> Tensor:
    """How likely it is that both numbers of a pair are dropped, the first, the other, neither."""
    return torch.tensor([p * p, p * (1 - p), (1 - p) * p, (1 - p) * (1 - p)])
