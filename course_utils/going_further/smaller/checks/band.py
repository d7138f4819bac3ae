"""What the check cell of the band calls (chapter 09)."""

import inspect
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ....checks.common import is_stub, raised, tensor, verdict
from ....checks.elsewhere import follows_its_device
from ..window import band_mask as right

EASY = ((6, 6, 3, 0), (6, 6, 2, 1), (6, 6, 2, 3), (2, 7, 3, 2), (1, 9, 4, 1), (5, 5, 9, 0))
LARGE = ((130, 300, 100, 9), (5, 700, 600, 20))


@verdict
def check_band_mask(band_mask: Callable[..., Tensor]) -> str:
    """Chapter 09, exercise 2. Returns a verdict; raises AssertionError on a wrong mask."""
    sizes = [(queries, keys) for keys in range(1, 6) for queries in range(1, keys + 1)]
    every = itertools.product(sizes, range(1, 7), range(7))
    small = ((*size, window, sinks) for size, window, sinks in every)
    for case in (*EASY, *small, *LARGE):
        num_queries, num_keys, window, sinks = case
        call = f"band_mask({num_queries}, {num_keys}, window={window}, sinks={sinks})"
        _judge(call, _ask(band_mask, case, call), case)
    call = "band_mask(4, 4, 2), without sinks,"
    _judge(call, _ask(band_mask, (4, 4, 2), call), (4, 4, 2, 0))
    _takes_a_device(band_mask)

    def use(_: nn.Module, device: torch.device) -> Tensor:
        return band_mask(2, 5, 3, 1, device)

    follows_its_device(use, "band_mask(2, 5, 3, 1, device)")
    return (
        "band_mask is right: any window, with sinks and without, for a square and for the last "
        "queries, on any device."
    )


def _ask(band_mask: Callable[..., Tensor], case: tuple[int, ...], call: str) -> object:
    try:
        return band_mask(*case)
    except Exception as error:
        if is_stub(error):
            raise
        raise AssertionError(f"{call} {raised(error)}.") from error


def _takes_a_device(band_mask: Callable[..., Tensor]) -> None:
    """Raise AssertionError unless it can be called with a device."""
    try:
        inspect.signature(band_mask).bind(2, 5, 3, 1, "cpu")
    except TypeError:
        raise AssertionError(
            "band_mask(2, 5, 3, 1, device) cannot be called: it needs a fifth parameter, "
            "device=None, for what makes tensors."
        ) from None


def _judge(call: str, found: object, case: tuple[int, int, int, int]) -> None:
    """Raise AssertionError unless `found` is the mask for so many queries, keys, and so on."""
    num_queries, num_keys, window, sinks = case
    found = tensor(found, call, (num_queries, num_keys))
    if found.dtype != torch.bool:
        raise AssertionError(f"{call} is of {found.dtype}, expected torch.bool.")
    expected = right(*case)
    if num_keys > 1 and torch.equal(found, ~expected):
        raise AssertionError(f"{call} is inverted: it has to be True where a query may look.")
    for row, key in (found != expected).nonzero().tolist():
        query = num_keys - num_queries + row
        from_the_corner = right(num_keys, num_keys, window, sinks)[:num_queries]
        last = " Are the queries the last positions?" * torch.equal(found, from_the_corner)
        raise AssertionError(_why_not(call, query, key, bool(expected[row, key]), case) + last)


def _why_not(call: str, query: int, key: int, sees: bool, case: tuple[int, int, int, int]) -> str:
    *_, window, sinks = case
    does, should = ("does not see", "must") if sees else ("sees", "must not")
    if key > query:
        reason = "nobody sees what comes later, a sink no more than another position"
    elif key < sinks:
        reason = f"positions below {sinks} are sinks, which every later position sees"
    elif sees:
        reason = (
            f"the last {window}, its own among them, are those from {max(query - window + 1, 0)} on"
        )
    else:
        reason = f"it is {query - key} back, and the window of {window} counts its own position"
    return f"In {call} position {query} {does} position {key}, and {should}: {reason}."
