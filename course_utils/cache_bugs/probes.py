"""Short runs that tell wrong caches apart, and how two outcomes are compared (notebook 05)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..evaluation import (
    after_rollback,
    alternating,
    can_roll_back,
    first_difference,
    follows_its_device,
    in_portions,
    side_by_side,
    uncached,
)
from ..transformer import DecoderOnlyTransformer

LEAST_ROOM = 12
PAST_THE_END = "past the end"
EXTRAS = ("after a rollback", "prompts of different length", "on another device")
AFTER_OTHERS = ("a second time", "without a cache, afterwards")


def probes(reference: DecoderOnlyTransformer) -> dict[str, Callable[[nn.Module], Tensor]]:
    """Runs of a model that tell the catalogue's bugs apart; each returns logits or raises.

    They belong together, in this order: some bugs show only after other calls.
    """
    generator = torch.Generator().manual_seed(0)
    room, vocab_size = reference.max_seq_len, reference.token_embedding.num_embeddings
    if room < LEAST_ROOM:
        raise ValueError(f"max_seq_len={room} is too short to tell bugs apart: needs {LEAST_ROOM}.")

    def draw(*shape: int) -> Tensor:
        return torch.randint(vocab_size, shape, generator=generator).to(reference.device)

    ids, other, batch, full = draw(1, 12), draw(1, 12), draw(3, 12), draw(1, room + 1)
    decoded = (6, 1, 1, 1, 1, 1, 1)
    return {
        "at once": lambda m: in_portions(m, ids, (12,)),
        "one by one": lambda m: in_portions(m, ids, decoded),
        "one by one from the start": lambda m: in_portions(m, ids, (1,) * 12),
        "in chunks": lambda m: in_portions(m, ids, (6, 2, 4)),
        "in a batch": lambda m: in_portions(m, batch, decoded),
        "a second time": lambda m: in_portions(m, other, decoded),
        "two at the same time": lambda m: torch.cat(alternating(m, ids, other)),
        "without a cache, afterwards": lambda m: uncached(m, ids),
        PAST_THE_END: lambda m: in_portions(m, full, (room - 2, 1, 1, 1)),
        "after a rollback": lambda m: _rolled_back(m, ids),
        "prompts of different length": lambda m: _padded(m, batch),
        "on another device": lambda m: _moved(m, ids),
    }


def _rolled_back(model: nn.Module, ids: Tensor) -> Tensor:
    """A model whose cache has no `truncate` runs the text from its start instead."""
    if can_roll_back(model, ids):
        return after_rollback(model, ids, 6)
    return in_portions(model, ids, (1,) * ids.size(1))


def _padded(model: nn.Module, batch: Tensor) -> Tensor:
    """A model without `padded_cache` runs the prompts one after the other instead."""
    rows = [batch[0], batch[1, 3:], batch[2, 5:]]
    if hasattr(model, "padded_cache"):
        return side_by_side(model, rows, 4)
    alone = [in_portions(model, row[None], (len(row) - 4, 1, 1, 1, 1)) for row in rows]
    return pad_sequence([logits[0] for logits in alone], batch_first=True)


def _moved(model: nn.Module, ids: Tensor) -> Tensor:
    follows_its_device(model, ids)
    return torch.zeros(1, 1, 1)


def outcome(run: Callable[[nn.Module], Tensor], model: nn.Module) -> Tensor | str:
    """The logits, or the error in words."""
    try:
        return run(model).cpu().double()
    except NotImplementedError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def agree(found: Tensor | str, expected: Tensor | str, tolerance: float, name: str = "") -> bool:
    """Errors agree if they are the same; past the end, where any error is right, always."""
    if isinstance(found, str) or isinstance(expected, str):
        return type(found) is type(expected) and (name == PAST_THE_END or found == expected)
    same_shape = found.shape == expected.shape
    return same_shape and torch.allclose(found, expected, 0, tolerance, equal_nan=True)


def evidence(name: str, found: Tensor | str, expected: Tensor | str, tolerance: float) -> str:
    """What is wrong about an outcome, in a sentence."""
    if isinstance(found, str):
        return f"{name}: {found.splitlines()[0].rstrip('.')}."
    if isinstance(expected, str):
        return f"{name}: no error was raised; expected one."
    difference = first_difference(expected, found, tolerance)
    size = "NaN" if math.isinf(difference.largest) else f"{difference.largest:#.3g}"
    return f"{name}: differs from position {difference.position} on (max |Δlogit| {size})."
