"""What the judgement asks a model about itself, and how it is called (notebook 05).

Shapes: B batch, T tokens, V vocab_size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn


def max_seq_len(model: nn.Module) -> int:
    return model.pos_embedding.weight.size(0)


def vocab_size(model: nn.Module) -> int:
    return model.token_embedding.weight.size(0)


def on_device(ids: Tensor, model: nn.Module) -> Tensor:
    return ids.to(next(model.parameters()).device)


@torch.no_grad()
def uncached(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Logits (B, T, V) of the plain forward pass, which may return them alone or in a tuple."""
    found = model(input_ids)
    return found if isinstance(found, Tensor) else found[0]


@torch.no_grad()
def in_chunks(model: nn.Module, input_ids: Tensor, chunks: Sequence[int]) -> Tensor:
    """Logits (B, T, V) with a cache, fed in `chunks`: (4, 1, 1) is 4, then 1, then 1."""
    logits, past_kv = [], None
    for chunk in input_ids.split(list(chunks), dim=1):
        part, past_kv = model(chunk, past_kv=past_kv, use_cache=True)
        logits.append(part)
    return torch.cat(logits, dim=1)


def changed(cache: Any, method: str, argument: object) -> Any:
    """The cache after `truncate` or `reorder`: the same, or the new one that was returned."""
    result = getattr(cache, method)(argument)
    return cache if result is None or isinstance(result, Number) else result


@dataclass(frozen=True)
class Offers:
    """What a model can do beyond `forward`."""

    truncate: bool
    reorder: bool
    padded_cache: bool
    generate: bool


@torch.no_grad()
def offers(model: nn.Module) -> Offers:
    """Looks at the model, and at the cache that it returns for one token.

    A method that raises NotImplementedError is not offered.
    """
    ids = on_device(torch.zeros(1, 1, dtype=torch.long), model)
    try:
        cache = model(ids, use_cache=True)[1]
    except Exception:
        cache = None
    return Offers(
        truncate=_works(cache, "truncate", 1),
        reorder=_works(cache, "reorder", on_device(torch.tensor([0]), model)),
        padded_cache=_works(model, "padded_cache", on_device(torch.tensor([0]), model)),
        generate=_works(model, "generate", ids, 1),
    )


def _works(owner: object, method: str, *arguments: object) -> bool:
    call = getattr(owner, method, None)
    if call is None:
        return False
    try:
        call(*arguments)
    except NotImplementedError:
        return False
    except Exception:
        return True
    return True
