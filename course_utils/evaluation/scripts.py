"""What a user of a cache does: every way of feeding the same tokens (notebook 05).

Each returns the logits of all tokens, however they were split.

Shapes: B batch, T tokens, V vocab_size.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..left_padding import left_pad

ALL_PORTIONS_UP_TO = 24


@torch.no_grad()
def uncached(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Logits (B, T, V) of the plain forward pass."""
    return model(input_ids)[0]


@torch.no_grad()
def in_portions(model: nn.Module, input_ids: Tensor, portions: Sequence[int]) -> Tensor:
    """Logits (B, T, V) with a cache, the tokens fed in `portions`: (4, 1, 1) is 4, then 1, then 1.

    Raises ValueError if the model returns other than one row of logits per token fed in.
    """
    logits, past_kv = [], None
    for portion in input_ids.split(list(portions), dim=1):
        part, past_kv = model(portion, past_kv=past_kv, use_cache=True)
        if part.shape[:2] != portion.shape:
            raise ValueError(
                f"feeding {portion.size(1)} tokens gave logits for {tuple(part.shape[:2])} "
                f"(batch, seq_len), expected {tuple(portion.shape)}: only the new tokens go in, "
                "and only theirs come out"
            )
        logits.append(part)
    return torch.cat(logits, dim=1)


def portionings(seq_len: int) -> Iterator[tuple[int, ...]]:
    """The ways in which `kv_evaluate` feeds `seq_len` tokens.

    At once; every prefill followed by one token at a time (from a sequence of more than 24 tokens
    on: by two single tokens and the rest at once); from an empty cache one by one, in threes, and
    in chunks of 1, 2, 3, ... tokens.
    """
    yield (seq_len,)
    for prefill in range(1, seq_len):
        rest = seq_len - prefill
        if seq_len <= ALL_PORTIONS_UP_TO or rest <= 3:
            yield (prefill,) + (1,) * rest
        else:
            yield (prefill, 1, 1, rest - 2)
        if seq_len <= ALL_PORTIONS_UP_TO and rest > 1:
            yield (prefill, rest)
    if seq_len > 3:
        yield (3,) * (seq_len // 3) + ((seq_len % 3,) if seq_len % 3 else ())
        yield tuple(_staircase(seq_len))
    if seq_len > ALL_PORTIONS_UP_TO:
        yield (1,) * seq_len


def _staircase(seq_len: int) -> Iterator[int]:
    step = 1
    while seq_len:
        yield min(step, seq_len)
        seq_len -= min(step, seq_len)
        step += 1


def describe(portions: Sequence[int]) -> str:
    """(4, 1, 1) as "prefill 4, then 1 at a time"."""
    first, rest = portions[0], portions[1:]
    if not rest:
        return f"all {first} at once through an empty cache"
    if set(portions) == {1}:
        return "1 at a time from an empty cache"
    if set(rest) == {1}:
        return f"prefill {first}, then 1 at a time"
    shown = ", ".join(map(str, portions[:5])) + (", ..." if len(portions) > 5 else "")
    return f"in chunks of {shown}"


@torch.no_grad()
def alternating(model: nn.Module, *sequences: Tensor) -> list[Tensor]:
    """Logits (B, T, V) of each sequence, decoded in turns: one token of each, each its cache."""
    caches = [None] * len(sequences)
    logits = [[] for _ in sequences]
    for position in range(sequences[0].size(1)):
        for i, ids in enumerate(sequences):
            token = ids[:, position : position + 1]
            part, caches[i] = model(token, past_kv=caches[i], use_cache=True)
            logits[i].append(part)
    return [torch.cat(parts, dim=1) for parts in logits]


@torch.no_grad()
def can_roll_back(model: nn.Module, input_ids: Tensor) -> bool:
    """Whether what the model returns as `past_kv` has a method `truncate`."""
    try:
        return hasattr(model(input_ids, use_cache=True)[1], "truncate")
    except Exception:
        return False


@torch.no_grad()
def after_rollback(model: nn.Module, input_ids: Tensor, keep: int) -> Tensor:
    """Logits (B, T, V), one token at a time, where other tokens had gone in after the first `keep`.

    They are guesses that prove wrong: the cache is truncated to `keep` before the rest goes in.
    """
    guesses = (input_ids + 1) % vocab_size(model)
    logits, past_kv = [], None
    for i in range(keep):
        part, past_kv = model(input_ids[:, i : i + 1], past_kv=past_kv, use_cache=True)
        logits.append(part)
    past_kv = model(guesses[:, keep:], past_kv=past_kv, use_cache=True)[1]
    past_kv.truncate(keep)
    for i in range(keep, input_ids.size(1)):
        part, past_kv = model(input_ids[:, i : i + 1], past_kv=past_kv, use_cache=True)
        logits.append(part)
    return torch.cat(logits, dim=1)


@torch.no_grad()
def side_by_side(model: nn.Module, rows: Sequence[Tensor], steps: int) -> Tensor:
    """Logits (B, longest, V) of sequences (T_i,) that go in as one batch, padded on the left.

    All but the last `steps` tokens of each row are the prefill; these then go in one at a time.
    What comes back is padded with zeros on the right: column i is each row's own position i.
    """
    ids, padding = left_pad([row[: len(row) - steps] for row in rows])
    last = torch.stack([row[len(row) - steps :] for row in rows])
    logits, past_kv = [], model.padded_cache(padding)
    for portion in [ids, *last.split(1, dim=1)] if steps else [ids]:
        part, past_kv = model(portion, past_kv=past_kv, use_cache=True)
        logits.append(part)
    found = torch.cat(logits, dim=1)
    own = [found[i, pad:] for i, pad in enumerate(padding.tolist())]
    return pad_sequence(own, batch_first=True)


@torch.no_grad()
def follows_its_device(model: nn.Module, input_ids: Tensor) -> None:
    """Raise RuntimeError if a cached call mixes devices when the model is moved to another one.

    The other device is PyTorch's `meta`, which every machine has: it knows shapes and devices and
    computes nothing. A model that looks at values cannot run there, and is not judged.
    """
    ids = torch.empty_like(input_ids, device="meta")
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    moved = {name: tensor.to("meta") for name, tensor in tensors}

    def run(portion: Tensor, **cached: Any) -> tuple[Tensor, Any]:
        return torch.func.functional_call(model, moved, (portion,), cached)

    try:
        run(ids)
    except Exception:
        return
    single = min(3, ids.size(1) - 1)
    try:
        in_portions(run, ids, (ids.size(1) - single,) + (1,) * single)
    except Exception as error:
        if "item()" not in str(error):
            raise RuntimeError(
                f"a cached call fails when the model is moved to another device ({error})"
            ) from None


def max_seq_len(model: nn.Module) -> int:
    return model.pos_embedding.weight.size(0)


def vocab_size(model: nn.Module) -> int:
    return model.token_embedding.weight.size(0)


def on_device(ids: Tensor, model: nn.Module) -> Tensor:
    return ids.to(next(model.parameters()).device)
