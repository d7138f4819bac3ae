"""Keys and values in 8, 4 or 2 bits, packed into bytes, and the cache that holds them (chapter 09).

Numbers that are rounded together share a lowest value and a step, kept in 16 bits each. *Per
token*: the d numbers of one position of one head. *Per channel*: one channel of one head over
`GROUP` positions, which can be rounded only when all of them are there.

Shapes: B batch, H num_heads, T tokens, d d_head.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...transformer import DecoderOnlyTransformer
from .smaller_caches import (
    ApproximateTransformer,
    Rule,
    SmallerCache,
    approximate,
    one_position,
    slots,
)

GROUP = 32
TOKEN, CHANNEL = "token", "channel"
TOGETHER = {TOKEN: (1, -1), CHANNEL: (GROUP, -2)}


def quantize(x: Tensor, bits: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (uint8, 0 to 2**bits - 1), lowest value and step: x is about low + step * code.

    `low` and `step` are shared along `dim` and are float16; what comes back is wrong by half a step
    and by what rounding these two to 16 bits adds.
    Source: Liu et al., "KIVI", 2024, equation 1.
    """
    top = 2**bits - 1
    low = x.amin(dim, keepdim=True).half()
    step = ((x.amax(dim, keepdim=True) - low) / top).half()
    codes = ((x - low) / step.where(step > 0, 1)).round().clamp(0, top)
    return codes.to(torch.uint8), low, step


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (..., n) of `bits` bits as bytes (..., n * bits / 8): in each, low bits first."""
    shifts = torch.arange(0, 8, bits, device=codes.device)
    return (codes.unflatten(-1, (-1, 8 // bits)) << shifts).sum(dim=-1).to(torch.uint8)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The inverse of `pack`: bytes (..., m) -> codes (..., m * 8 / bits)."""
    shifts = torch.arange(0, 8, bits, device=packed.device)
    return ((packed[..., None] >> shifts) & (2**bits - 1)).flatten(-2)


def rounded(x: Tensor, bits: int, way: str) -> Tensor:
    """x (B, H, T, d) as it comes back, rounded `way`; an unfinished group is untouched."""
    group, dim = TOGETHER[way]
    full = x.size(2) // group * group
    codes, low, step = quantize(x[:, :, :full].unflatten(2, (-1, group)), bits, dim)
    return torch.cat([(low + step * codes.to(x.dtype)).flatten(2, 3), x[:, :, full:]], dim=2)


def rounding_rule(bits: int, keys: str = CHANNEL, values: str = TOKEN) -> Rule:
    """Attention to keys and values rounded per token or per channel.

    What is rounded per channel is seen rounded from the position on that completes its group, and
    by those before it as it is. So each position is offered twice, and the mask picks one of them.
    """

    def rule(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        position = torch.arange(q.size(2), device=q.device)
        group = TOGETHER[CHANNEL][0]
        complete = (position // group + 1) * group <= position[:, None] + 1
        causal = position <= position[:, None]
        old_k, old_v = rounded(k, bits, keys), rounded(v, bits, values)
        new_k, new_v = old_k if keys == TOKEN else k, old_v if values == TOKEN else v
        return F.scaled_dot_product_attention(
            q,
            torch.cat([old_k, new_k], dim=2),
            torch.cat([old_v, new_v], dim=2),
            attn_mask=torch.cat([causal & complete, causal & ~complete], dim=1),
        )

    return rule


class PackedTensor:
    """The keys (or the values) of one layer: complete groups packed, the rest as it came.

    `closed` is packed codes (B, H, groups, group, d * bits / 8) with their lowest values and steps;
    `rest` (B, H, fewer positions than a group, d).
    """

    def __init__(self, empty: Tensor, bits: int, way: str):
        self.bits, self.rest = bits, empty
        self.group, self.dim = TOGETHER[way]
        self.closed: tuple[Tensor, ...] = ()

    def append(self, x: Tensor) -> Tensor:
        """Store x (B, H, 1, d) of one position; return all (B, H, T, d) as they come back."""
        self.rest = torch.cat([self.rest, x], dim=2)
        if self.rest.size(2) == self.group:
            codes, low, step = quantize(self.rest[:, :, None], self.bits, self.dim)
            new = (pack(codes, self.bits), low, step)
            pairs = zip(self.closed, new, strict=True) if self.closed else ((t,) for t in new)
            self.closed = tuple(torch.cat(pair, dim=2) for pair in pairs)
            self.rest = x.new_empty(*x.shape[:2], 0, x.size(3))
        if not self.closed:
            return self.rest
        packed, low, step = self.closed
        numbers = low + step * unpack(packed, self.bits).to(x.dtype)
        return torch.cat([numbers.flatten(2, 3), self.rest], dim=2)

    def reorder(self, rows: Tensor) -> None:
        self.closed = tuple(tensor[rows] for tensor in self.closed)
        self.rest = self.rest[rows]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.closed, self.rest))


class QuantizedCache(SmallerCache):
    """Keeps every position, in fewer bits: keys per channel and values per token, or otherwise."""

    def __init__(
        self,
        model: DecoderOnlyTransformer,
        batch_size: int,
        bits: int,
        keys: str = CHANNEL,
        values: str = TOKEN,
    ):
        super().__init__(model, batch_size)
        empty = slots(model, batch_size, [0] * model.num_layers)
        self.keys = [PackedTensor(tensor, bits, keys) for tensor in empty]
        self.values = [PackedTensor(tensor, bits, values) for tensor in empty]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, 1, d) of one position; return all (B, H, T, d) that it looks at."""
        one_position(k)
        self.lengths[layer] += 1
        return self.keys[layer].append(k), self.values[layer].append(v)

    def reorder(self, rows: Tensor) -> None:
        """Make row i a copy of what row `rows[i]` was; there are then len(rows) rows."""
        for stored in self.keys + self.values:
            stored.reorder(rows)
        self.batch_size = len(rows)


def quantized(
    model: DecoderOnlyTransformer, bits: int, keys: str = CHANNEL, values: str = TOKEN
) -> ApproximateTransformer:
    """The model with a `QuantizedCache`. Raises ValueError unless `bits` is 8, 4 or 2."""
    if bits not in (8, 4, 2):
        raise ValueError(f"bits={bits} does not fill a byte: choose 8, 4 or 2.")
    cache = partial(QuantizedCache, bits=bits, keys=keys, values=values)
    return approximate(model, rounding_rule(bits, keys, values), cache)
