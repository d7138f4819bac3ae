"""How caches truncate and reorder: at once or later, in place or in a new cache, or not at all."""

import copy

import torch

from course_utils.kv_cache import GrowingCache, check_rollback
from course_utils.transformer import DecoderOnlyTransformer

from .parts import Counted, Joined, Repacked, cut, no_pairs, pick, right, twin


class Pairs:
    """A cache that keeps a list of pairs (k, v), one for each layer."""

    def __init__(self, model, batch_size):
        self.store = Joined(no_pairs(model, batch_size))

    def with_pairs(self, pairs):
        new = copy.copy(self)
        new.store = Joined(pairs)
        return new

    @property
    def pairs(self):
        return self.store.pairs

    @property
    def batch_size(self):
        return self.pairs[0][0].size(0)

    @property
    def length(self):
        return self.pairs[0][0].size(2)

    def append(self, layer, k, v):
        return self.store.append(layer, k, v)


@right
class TruncateReturnsNew(Pairs):
    """A rollback returns a shorter cache and leaves the old one as it was."""

    def truncate(self, length):
        return self.with_pairs(cut(self.pairs, length))


@right
class ReorderReturnsNew(Pairs):
    """A reorder returns a new cache and leaves the old one as it was; a rollback is in place."""

    def reorder(self, rows):
        return self.with_pairs(pick(self.pairs, rows))

    def truncate(self, length):
        self.store = Joined(cut(self.pairs, length))


@right
class ReturnsItself(Pairs):
    """Truncate and reorder work in place, and return the cache itself."""

    def reorder(self, rows):
        self.store = Joined(pick(self.pairs, rows))
        return self

    def truncate(self, length):
        self.store = Joined(cut(self.pairs, length))
        return self


@right
class ReorderOnly(Pairs):
    """Rows can be reordered, but nothing can be taken back."""

    def reorder(self, rows):
        self.store = Joined(pick(self.pairs, rows))


@right
class NeitherOffered(Pairs):
    """Neither truncate nor reorder is offered."""


@right
class LazyReorder(Counted):
    """A reorder is only noted, for each piece by itself, and done whenever the piece is read."""

    def prepare(self):
        self.pieces = [[] for _ in self.lengths]

    def write(self, layer, start, k, v):
        order = torch.arange(self.batch_size, device=k.device)
        self.pieces[layer].append((torch.stack([k, v]), order))

    def read(self, layer, end):
        return torch.cat([kept[:, order] for kept, order in self.pieces[layer]], dim=3)

    def reorder(self, rows):
        self.pieces = [[(kept, order[rows]) for kept, order in layer] for layer in self.pieces]
        self.batch_size = len(rows)

    def truncate(self, length):
        super().truncate(length)
        order = torch.arange(self.batch_size, device=self.like["device"])
        whole = [self.read(layer, None)[:, :, :, :length] for layer in range(len(self.pieces))]
        self.pieces = [[(kept, order)] for kept in whole]


@right
class LazyTruncate(Pairs):
    """A rollback is only noted; the numbers go when something new comes."""

    wanted = None

    @property
    def length(self):
        return super().length if self.wanted is None else self.wanted

    def truncate(self, length):
        check_rollback(length, self.length)
        self.wanted = length

    def append(self, layer, k, v):
        if self.wanted is not None:
            self.store, self.wanted = Joined(cut(self.pairs, self.wanted)), None
        return super().append(layer, k, v)


@right
class CopyOnWrite(Counted):
    """Truncate returns a cache on the same buffer, which whoever writes to it next copies first."""

    def prepare(self):
        self.buffer = torch.stack([self.zeros(self.room) for _ in self.lengths])
        self.shared = False

    def write(self, layer, start, k, v):
        if self.shared:
            self.buffer, self.shared = self.buffer.clone(), False
        self.buffer[layer, :, :, :, start : start + k.size(2)] = torch.stack([k, v])

    def read(self, layer, end):
        return self.buffer[layer, :, :, :, :end]

    def truncate(self, length):
        self.shared = True
        new = copy.copy(self)
        Counted.truncate(new, length)
        return new


@right
class Journal(Counted):
    """The cache keeps what was done to it, and does all of it again whenever it is read."""

    def prepare(self):
        self.events = [[] for _ in self.lengths]

    def write(self, layer, start, k, v):
        self.events[layer].append(lambda kept: torch.cat([kept, torch.stack([k, v])], dim=3))

    def read(self, layer, end):
        events = iter(self.events[layer])
        kept = next(events)(self.first_rows)
        for event in events:
            kept = event(kept)
        return kept

    @property
    def first_rows(self):
        return torch.zeros(2, self.begun_with, self.heads, 0, self.d_head, **self.like)

    def append(self, layer, k, v):
        if not self.events[layer]:
            self.begun_with = self.batch_size
        return super().append(layer, k, v)

    def truncate(self, length):
        super().truncate(length)
        for events in self.events:
            events.append(lambda kept: kept[:, :, :, :length])

    def reorder(self, rows):
        self.batch_size, rows = len(rows), rows.clone()
        for events in self.events:
            events.append(lambda kept: kept[:, rows])


class RowCaches:
    def __init__(self, rows):
        self.rows = rows

    def truncate(self, length):
        for cache in self.rows:
            cache.truncate(length)

    def reorder(self, rows):
        self.rows = [twin(self.rows[row]) for row in rows.tolist()]


@right
class RowByRow(DecoderOnlyTransformer):
    """Every row of a batch has a cache of its own, and is run by itself."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        past_kv = past_kv or RowCaches([GrowingCache(self, 1) for _ in input_ids])
        both = zip(input_ids.split(1), past_kv.rows, strict=True)
        return torch.cat([super(RowByRow, self).forward(i, c, True)[0] for i, c in both]), past_kv


@right
class NestedRows(Repacked):
    """The cache is a list for each row of lists for each layer of pairs."""

    def pack(self, pairs):
        rows = range(len(pairs[0][0]))
        return [[(k[row], v[row]) for k, v in pairs] for row in rows]

    def unpack(self, past_kv):
        layers = zip(*past_kv, strict=True)
        return [tuple(torch.stack(part) for part in zip(*rows, strict=True)) for rows in layers]
