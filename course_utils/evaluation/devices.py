"""Does a cache follow its model to another device? (notebook 05)"""

import itertools
import logging
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch
from torch._subclasses.fake_tensor import FakeTensorMode

from .model import changed

CHUNKS = (3, 1, 2, 1)
ELSEWHERE = "lazy:0"
MIXED = re.compile("same device|different devices|device between")  # as PyTorch's operations say it


class NotJudged(Exception):
    """Something that cannot be tried on this model, and why."""


@torch.no_grad()
def follows_its_device(model: nn.Module) -> None:
    """Raise RuntimeError if a use of the cache brings together tensors of two devices.

    The other device is one of PyTorch's that every machine has; the tensors on it are
    `FakeTensor`s, which know their shape and device and hold no numbers. Raises NotJudged for a
    model that looks at numbers or addresses, or that fails there for any other reason.
    """
    logging.getLogger(FakeTensorMode.__module__).setLevel(logging.CRITICAL)
    there = _There(model)
    tensors = itertools.chain(there.named_parameters(), there.named_buffers())
    no_addresses = functorch.patch(fake_tensor_allow_unsafe_data_ptr_access=False)
    with no_addresses, FakeTensorMode(allow_non_fake_inputs=True):
        moved = {name: torch.empty(t.shape, dtype=t.dtype, device=ELSEWHERE) for name, t in tensors}
        for use in (_without_cache, _fed, _rolled_back, _reordered, _padded):
            try:
                torch.func.functional_call(there, moved, (use,))
            except Exception as error:
                _complain(use, error)


def _complain(use: Callable[[nn.Module], object], error: Exception) -> None:
    """Raise if devices were mixed, or if nothing can be tried there at all."""
    name = type(error).__name__
    if use is _without_cache:
        raise NotJudged(f"without a cache it fails there too ({name})") from None
    if MIXED.search(str(error)):
        raise RuntimeError(f"a cached call mixes devices: {error}") from None
    if use is _fed:
        raise NotJudged(f"it cannot run where there are no numbers ({name})") from None


class _There(nn.Module):
    """Uses a model while `functional_call` has put its parameters on another device."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, use: Callable[[nn.Module], object]) -> object:
        return use(self.model)


def _ids(model: nn.Module, tokens: int, rows: int = 1) -> Tensor:
    room = model.pos_embedding.weight.size(0)
    return torch.zeros(rows, min(tokens, room), dtype=torch.long, device=ELSEWHERE)


def _without_cache(model: nn.Module) -> None:
    model(_ids(model, sum(CHUNKS)))


def _fed(model: nn.Module, chunks: tuple[int, ...] = CHUNKS, past_kv: Any = None) -> Any:
    room = model.pos_embedding.weight.size(0)
    for tokens in chunks if room >= sum(chunks) else (1,) * room:
        _, past_kv = model(_ids(model, tokens), past_kv=past_kv, use_cache=True)
    return past_kv


def _rolled_back(model: nn.Module) -> None:
    _fed(model, (1, 2), changed(_fed(model, (3, 1)), "truncate", 2))


def _reordered(model: nn.Module) -> None:
    rows = torch.zeros(2, dtype=torch.long, device=ELSEWHERE)
    past_kv = changed(_fed(model, (3, 1)), "reorder", rows)
    model(_ids(model, 1, rows=2), past_kv=past_kv, use_cache=True)


def _padded(model: nn.Module) -> None:
    past_kv = model.padded_cache(torch.zeros(2, dtype=torch.long, device=ELSEWHERE))
    for tokens in CHUNKS:
        _, past_kv = model(_ids(model, tokens, rows=2), past_kv=past_kv, use_cache=True)
