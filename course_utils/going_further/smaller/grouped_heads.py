"""Query heads that share keys and values: multi-query and grouped-query attention (chapter 09).

Shapes: B batch, T tokens, H num_heads, G num_kv_heads, d d_head, D d_model = H * d. Each of the
G key/value heads serves the H / G query heads that follow one another.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...attention import KeyValueStore, MultiHeadAttention
from ...kv_cache import GrowingCache
from ...transformer import ROOT, DecoderOnlyTransformer

UPTRAINED = ROOT / "data" / "grouped_heads.pt"


def pool_heads(weight: Tensor, num_heads: int, num_kv_heads: int) -> Tensor:
    """A projection (H * d, D) for all heads as one (G * d, D) for fewer: the mean of each group.

    Source: Ainslie et al., "GQA", 2023, section 2.1.
    """
    d_head = weight.size(0) // num_heads
    groups = weight.view(num_kv_heads, num_heads // num_kv_heads, d_head, weight.size(1))
    return groups.mean(dim=1).flatten(0, 1)


class GroupedAttention(MultiHeadAttention):
    """`MultiHeadAttention` with `num_kv_heads` heads of keys and values: (B, T, D) -> (B, T, D).

    With as many as `num_heads` it is the same, parameter for parameter; with 1 it is multi-query
    attention. Raises ValueError if the query heads cannot be divided among them.
    Source: Shazeer, "Fast Transformer Decoding: One Write-Head is All You Need", 2019.
    """

    def __init__(self, d_model: int, num_heads: int, num_kv_heads: int):
        super().__init__(d_model, num_heads)
        if num_kv_heads < 1 or num_heads % num_kv_heads:
            raise ValueError(
                f"num_heads={num_heads} query heads cannot share num_kv_heads={num_kv_heads} "
                "equally: choose a num_kv_heads that divides num_heads."
            )
        self.shared_by = num_heads // num_kv_heads
        self.d_head = d_model // num_heads
        self.W_k = nn.Linear(d_model, num_kv_heads * self.d_head, bias=False)
        self.W_v = nn.Linear(d_model, num_kv_heads * self.d_head, bias=False)

    def forward(self, x: Tensor, cache: KeyValueStore | None = None, layer: int = 0) -> Tensor:
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        if cache is not None:
            k, v = cache.append(layer, k, v)
        return self.W_o(self.merge_heads(self.attend(q, self.share(k), self.share(v))))

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, n * d) -> (B, n, T, d), for as many heads as there are."""
        return x.unflatten(-1, (-1, self.d_head)).transpose(1, 2)

    def share(self, x: Tensor) -> Tensor:
        """(B, G, T, d) -> (B, H, T, d): each head once for every query head that it serves."""
        return x.repeat_interleave(self.shared_by, dim=1)


class GroupedCache(GrowingCache):
    """A growing cache of the `num_kv_heads` heads that there are to keep."""

    def __init__(self, model: Any, batch_size: int):
        super().__init__(model, batch_size)
        empty = self.keys[0][:, : model.num_kv_heads]
        self.keys, self.values = [empty] * model.num_layers, [empty] * model.num_layers


class GroupedTransformer(DecoderOnlyTransformer):
    """The course's model with `num_kv_heads` heads of keys and values in every layer."""

    def __init__(
        self, vocab_size: int, d_model: int, *shape: Any, num_heads: int, num_kv_heads: int
    ):
        super().__init__(vocab_size, d_model, *shape, num_heads=num_heads, dropout=0.0)
        self.num_kv_heads = num_kv_heads
        for layer in self.layers:
            layer.attention = GroupedAttention(d_model, num_heads, num_kv_heads)

    def new_cache(self, batch_size: int) -> KeyValueStore:
        return GroupedCache(self, batch_size)


def shape_of(model: DecoderOnlyTransformer) -> tuple[int, ...]:
    """vocab_size, d_model, d_ff, num_layers and max_seq_len of a model."""
    d_ff = model.layers[0].feed_forward.fc1.out_features
    return (*model.token_embedding.weight.shape, d_ff, model.num_layers, model.max_seq_len)


def grouped(model: DecoderOnlyTransformer, num_kv_heads: int) -> GroupedTransformer:
    """A copy of the model with fewer key/value heads, the means of those it had."""
    pooled = GroupedTransformer(
        *shape_of(model), num_heads=model.num_heads, num_kv_heads=num_kv_heads
    )
    state = model.state_dict()
    for name in state:
        if name.endswith(("W_k.weight", "W_v.weight")):
            state[name] = pool_heads(state[name], model.num_heads, num_kv_heads)
    pooled.load_state_dict(state)
    return pooled.to(device=model.device, dtype=model.dtype).eval()


def uptrained(
    model: DecoderOnlyTransformer, num_kv_heads: int, path: Path | str = UPTRAINED
) -> GroupedTransformer:
    """`grouped`, after a short training of its attention, by `python -m ...uptrain`.

    Raises OSError if the file cannot be read, ValueError if it has no such number of heads.
    """
    saved = torch.load(path, map_location=model.device, weights_only=True)
    if num_kv_heads not in saved:
        raise ValueError(f"{path} holds {sorted(saved)} key/value heads, not {num_kv_heads}.")
    pooled = grouped(model, num_kv_heads)
    missing = pooled.load_state_dict(saved[num_kv_heads], strict=False)
    if missing.unexpected_keys:
        raise ValueError(f"{path} holds weights of another model: {missing.unexpected_keys[0]}.")
    return pooled
