"""Keys and values in pages of a few positions, found by a table or a mask."""

import random
import weakref

import torch

from course_utils.kv_cache import check_rollback
from course_utils.transformer import DecoderOnlyTransformer

from .parts import Counted, right


class Pool:
    """Pages for `size` positions of a row in all layers: (pages, L, 2, H, size, d).

    A page is in use as often as `uses` says. The free ones are given out in no particular order.
    """

    def __init__(self, model, size):
        self.size, self.uses, self.random = size, [], random.Random(0)
        shape = (0, model.num_layers, 2, model.num_heads, size, model.d_head)
        self.pages = torch.zeros(shape, dtype=model.dtype, device=model.device)

    def fits(self, model):
        return (self.pages.dtype, self.pages.device) == (model.dtype, model.device)

    @torch.inference_mode(False)
    def take(self):
        free = [page for page, uses in enumerate(self.uses) if not uses]
        if not free:
            more = self.pages.new_zeros((8, *self.pages.shape[1:]))
            free = list(range(len(self.uses), len(self.uses) + 8))
            self.pages = torch.cat([self.pages, more])
            self.uses += [0] * 8
        page = self.random.choice(free)
        self.uses[page] = 1
        return page

    def take_copy(self, page):
        new = self.take()
        self.pages[new] = self.pages[page]
        return new

    def give_back(self, rows):
        for row in rows:
            for page in row:
                self.uses[page] -= 1


class Paged:
    """The tables of a cache's rows: which page holds which of their positions."""

    def __init__(self, pool, batch_size):
        self.pool, self.length = pool, 0
        self.rows = [[] for _ in range(batch_size)]

    @property
    def batch_size(self):
        return len(self.rows)

    def make_room(self, new):
        """Pages for `new` positions more; the last page may be one that others read too."""
        self.length += new
        for row in self.rows:
            while len(row) * self.pool.size < self.length:
                row.append(self.pool.take())

    def places(self, start):
        """Pages (B, positions) and places in them (positions,), from position `start` on."""
        device = self.pool.pages.device
        positions = torch.arange(start, self.length, device=device)
        rows = torch.tensor(self.rows, device=device)
        return rows[:, positions // self.pool.size], positions % self.pool.size

    def append(self, layer, k, v):
        if layer == 0:
            self.make_room(k.size(2))
        page, place = self.places(self.length - k.size(2))
        for part, tensor in enumerate((k, v)):
            self.pool.pages[page, layer, part, :, place] = tensor.detach().transpose(1, 2)
        page, place = self.places(0)
        return [self.pool.pages[page, layer, i, :, place].transpose(1, 2) for i in range(2)]

    def truncate(self, length):
        check_rollback(length, self.length)
        keep = -(-length // self.pool.size)
        self.pool.give_back(row[keep:] for row in self.rows)
        self.length = length
        for row in self.rows:
            del row[keep:]


@right
class PagesOf4(DecoderOnlyTransformer):
    """Each cache has pages of 4 positions in a pool of its own."""

    size = 4

    def new_cache(self, batch_size):
        return Paged(Pool(self, self.size), batch_size)


@right
class PagesOf16(PagesOf4):
    """Each cache has pages of 16 positions in a pool of its own."""

    size = 16


@right
class PoolWithFinalizers(DecoderOnlyTransformer):
    """All caches have their pages in one pool, and a finalizer gives a dropped cache's back."""

    pool = None

    def shared_pool(self):
        if self.pool is None or not self.pool.fits(self):
            self.pool = Pool(self, 4)
        return self.pool

    def new_cache(self, batch_size):
        cache = Paged(self.shared_pool(), batch_size)
        weakref.finalize(cache, cache.pool.give_back, cache.rows)
        return cache


class SharedPages(Paged):
    def make_room(self, new):
        if self.length % self.pool.size:
            for row in self.rows:
                self.own_last_page(row)
        super().make_room(new)

    def own_last_page(self, row):
        last = row[-1]
        if self.pool.uses[last] > 1:
            row[-1] = self.pool.take_copy(last)
            self.pool.give_back([[last]])

    def reorder(self, rows):
        old, self.rows = self.rows, [list(self.rows[row]) for row in rows.tolist()]
        for row in self.rows:
            for page in row:
                self.pool.uses[page] += 1
        self.pool.give_back(old)

    def __del__(self):
        self.pool.give_back(self.rows)


@right
class PoolWithCounts(PoolWithFinalizers):
    """Rows share pages after a reorder, until one of them writes; pages in use are counted."""

    def new_cache(self, batch_size):
        return SharedPages(self.shared_pool(), batch_size)


@right
class MaskOfPositions(Counted):
    """Positions are in any slot that was free, and a boolean mask selects those in use."""

    def prepare(self):
        self.kept = [self.zeros(self.room) for _ in self.lengths]
        self.used = [self.no_slots() for _ in self.lengths]

    def no_slots(self):
        return torch.zeros(self.room, dtype=torch.bool, device=self.like["device"])

    def write(self, layer, start, k, v):
        new = self.no_slots()
        new[(~self.used[layer]).nonzero()[: k.size(2), 0]] = True
        self.kept[layer][:, :, :, new] = torch.stack([k, v])
        self.used[layer] |= new

    def read(self, layer, end):
        return self.kept[layer][:, :, :, self.used[layer]]

    def truncate(self, length):
        super().truncate(length)
        for used in self.used:
            used[length:] = False


@right
class MaskOfRows(Counted):
    """All rows' entries lie in one heap, and a boolean mask selects those of each row."""

    def prepare(self):
        flat = torch.zeros(2, 0, self.heads, self.d_head, **self.like)
        owner = torch.zeros(0, dtype=torch.long, device=self.like["device"])
        self.heap = [(flat, owner) for _ in self.lengths]

    def write(self, layer, start, k, v):
        flat, owner = self.heap[layer]
        rows = torch.arange(self.batch_size, device=owner.device)
        new = torch.stack([k, v]).permute(0, 3, 1, 2, 4).flatten(1, 2)
        owner = torch.cat([owner, rows.repeat(k.size(2))])
        self.heap[layer] = torch.cat([flat, new], dim=1), owner

    def read(self, layer, end):
        flat, owner = self.heap[layer]
        rows = [flat[:, owner == row] for row in range(self.batch_size)]
        return torch.stack(rows, dim=1).transpose(2, 3)

    def truncate(self, length):
        super().truncate(length)
        end = length * self.batch_size
        self.heap = [(flat[:, :end], owner[:end]) for flat, owner in self.heap]
