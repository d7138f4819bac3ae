"""Two key/value caches behind one small interface (notebook 04).

A cache belongs to one sequence (or one batch of sequences of equal length) of one model, and takes
its shape from the model: num_layers, num_heads, d_head, max_seq_len, dtype and device. It is opaque
to the caller of `forward`: whatever `forward` returned goes back in. Both caches have

    batch_size              sequences, side by side
    length                  positions stored so far
    append(layer, k, v)     store the new positions' k and v, return those of all positions
    reorder(rows)           row i becomes what row rows[i] was (beam search needs that)
    truncate(length)        forget all positions from `length` on (a rollback)
    nbytes                  memory held, in bytes

Shapes: B batch, H num_heads, Q new positions, K all positions, d d_head.
"""

import torch
from torch import Tensor, nn


def check_rollback(length: int, stored: int) -> None:
    """Raise ValueError unless a cache of `stored` positions can be set back to `length`."""
    if not 0 <= length <= stored:
        raise ValueError(
            f"truncate({length}) on a cache of {stored} positions: choose a length from 0 to "
            f"{stored}. A rollback only forgets."
        )


class GrowingCache:
    """Grows by concatenation: each append copies everything stored so far into a new tensor."""

    def __init__(self, model: nn.Module, batch_size: int):
        shape = (batch_size, model.num_heads, 0, model.d_head)
        self.batch_size = batch_size
        empty = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.keys = [empty] * model.num_layers
        self.values = [empty] * model.num_layers

    @property
    def length(self) -> int:
        return self.keys[0].size(2)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, Q, d) of the new positions; return all k, v (B, H, K, d)."""
        self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)
        self.values[layer] = torch.cat([self.values[layer], v], dim=2)
        return self.keys[layer], self.values[layer]

    def reorder(self, rows: Tensor) -> None:
        """Make row i a copy of what row `rows[i]` was; there are then len(rows) rows."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.batch_size = len(rows)

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on. Raises ValueError if fewer are stored."""
        check_rollback(length, self.length)
        self.keys = [keys[:, :, :length] for keys in self.keys]
        self.values = [values[:, :, :length] for values in self.values]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.keys + self.values)


class PreallocatedCache:
    """Room for `max_seq_len` positions, taken once; an append writes the new positions only."""

    def __init__(self, model: nn.Module, batch_size: int):
        shape = (model.num_layers, batch_size, model.num_heads, model.max_seq_len, model.d_head)
        self.batch_size = batch_size
        self.keys = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.values = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.lengths = [0] * model.num_layers

    @property
    def length(self) -> int:
        return self.lengths[0]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, Q, d) of the new positions; return views (B, H, K, d) of all."""
        start, end = self.lengths[layer], self.lengths[layer] + k.size(2)
        self.keys[layer, :, :, start:end] = k
        self.values[layer, :, :, start:end] = v
        self.lengths[layer] = end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Make row i a copy of what row `rows[i]` was; there are then len(rows) rows."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.batch_size = len(rows)

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on. Raises ValueError if fewer are stored."""
        check_rollback(length, self.length)
        self.lengths = [length] * len(self.lengths)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes
