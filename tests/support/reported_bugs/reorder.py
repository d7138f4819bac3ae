"""Wrong after rows have been reordered: beams, copies, dropped rows."""

import torch

from .entry import reported
from .parts import Flushed, PreallocatedCache
from .uses import pick, script

SWAPPED = script(4, pick(1, 0), 1, rows=2)
MORE_ROWS = script(4, pick(0, 0, 1), 1, rows=2)
DROPPED = script(4, pick(1), 1, rows=2)


@reported(
    "reorder_of_the_open_block", script(6, pick(1, 0), 1, rows=2), script(3, pick(1, 0), 1, rows=2)
)
class ReorderOfTheOpenBlock(Flushed):
    """What has been moved into closed blocks keeps its rows.

    Reported: a cache that compresses full blocks, huggingface/transformers#48700.
    """

    def reorder(self, rows):
        PreallocatedCache.reorder(self, rows)


@reported("reorder_takes_keys_for_values", SWAPPED, script(4, 1, rows=2))
class ReorderTakesKeysForValues(PreallocatedCache):
    """The new values are picked from the keys.

    Reported: a slip of the pen in a large library, huggingface/transformers#34232.
    """

    def reorder(self, rows):
        super().reorder(rows)
        self.values = self.keys.clone()


@reported("reorder_skipped", SWAPPED, MORE_ROWS)
class ReorderSkipped(PreallocatedCache):
    """Nothing is done as long as the number of rows stays.

    Reported: a loop that knows caches of one name, huggingface/transformers#46612.
    """

    def reorder(self, rows):
        if len(rows) != self.batch_size:
            super().reorder(rows)


@reported("reorder_with_rows_and_heads_in_one", SWAPPED, script(4, 1, rows=2))
class ReorderWithRowsAndHeadsInOne(PreallocatedCache):
    """Rows and heads are one dimension, and a row's number is used as if there were one head.

    Reported: Bloom's cache, huggingface/transformers#20213.
    """

    def reorder(self, rows):
        heads = self.keys.size(2)
        index = rows.repeat_interleave(heads)
        for name in ("keys", "values"):
            picked = getattr(self, name).flatten(1, 2)[:, index]
            setattr(self, name, picked.unflatten(1, (len(rows), heads)))
        self.batch_size = len(rows)


@reported("reorder_the_other_way", script(4, pick(1, 2, 0), 1, rows=3), SWAPPED)
class ReorderTheOtherWay(PreallocatedCache):
    """Row rows[i] becomes what row i was; for an exchange of two that is the same.

    Reported: beam search in student repositories (no address).
    """

    def reorder(self, rows):
        if len(rows) != self.batch_size:
            return super().reorder(rows)
        self.keys[:, rows], self.values[:, rows] = self.keys.clone(), self.values.clone()


@reported("reorder_over_itself", SWAPPED, script(4, pick(1, 1), 1, rows=2))
class ReorderOverItself(PreallocatedCache):
    """Rows are copied one after the other in place: some are overwritten before they are read.

    Reported: what the order of copies guards against, ggml-org/whisper.cpp#1243.
    """

    def reorder(self, rows):
        if len(rows) != self.batch_size:
            return super().reorder(rows)
        for row, source in enumerate(rows.tolist()):
            self.keys[:, row] = self.keys[:, source]
            self.values[:, row] = self.values[:, source]


@reported("reorder_misses_the_last_layer", SWAPPED, MORE_ROWS)
class ReorderMissesTheLastLayer(PreallocatedCache):
    """The last layer, which lives on another machine, keeps its rows.

    Reported: a model spread over machines, bigscience-workshop/petals#571.
    """

    def reorder(self, rows):
        old = self.keys[-1], self.values[-1]
        same = len(rows) == self.batch_size
        super().reorder(rows)
        if same:
            self.keys[-1], self.values[-1] = old


@reported("reorder_shares_the_open_block", script(5, pick(0, 0), 1), script(4, pick(0, 0), 1))
class ReorderSharesTheOpenBlock(PreallocatedCache):
    """Rows of the same origin share the block of 4 that is not full yet, and write into it.

    Reported: no copy on write, Avarok-Cybersecurity/atlas#1193, raullenchai/Rapid-MLX#196.
    """

    block_end = 0

    def reorder(self, rows):
        super().reorder(rows)
        rows = rows.tolist()
        self.last = [max(j for j, r in enumerate(rows) if r == row) for row in rows]
        self.block_end = -(-self.length // 4) * 4

    def append(self, layer, k, v):
        start = self.lengths[layer]
        found = super().append(layer, k, v)
        stop = min(self.lengths[layer], self.block_end)
        if stop > start:
            for part in found:
                part[:, :, start:stop] = part[self.last, :, start:stop]
        return found


@reported("reorder_forgets_dropped_rows", DROPPED, MORE_ROWS)
class ReorderForgetsDroppedRows(PreallocatedCache):
    """When rows are dropped, the first ones stay, whichever were asked for.

    Reported: decoding in slots that looks up slot 0, gittensor-ai-lab/sparkinfer#289.
    """

    def reorder(self, rows):
        if len(rows) < self.batch_size:
            rows = torch.arange(len(rows), device=rows.device)
        super().reorder(rows)


@reported(
    "rows_that_come_back",
    script(4, pick(0), 1, pick(0, 0), 1, rows=2),
    script(4, pick(0), 1, rows=2),
)
class RowsThatComeBack(PreallocatedCache):
    """Rows that were dropped stay in the buffer, and are there again when rows are added.

    Reported: batches that shrink and grow (no address).
    """

    spare = None

    def reorder(self, rows):
        before = self.batch_size
        old = self.keys, self.values
        super().reorder(rows)
        if len(rows) < before:
            self.spare = old
        elif len(rows) > before and self.spare is not None:
            size = min(len(rows), self.spare[0].size(1))
            if size > before:
                self.keys[:, before:size] = self.spare[0][:, before:size]


@reported(
    "same_order_again_is_skipped",
    script(4, pick(1, 0), 1, pick(1, 0), 1, rows=2),
    script(4, pick(1, 0), 1, pick(0, 0), 1, rows=2),
)
class SameOrderAgainIsSkipped(PreallocatedCache):
    """An order that is the same as the last one is taken for done.

    Reported: reorders that are left out to save time, OpenNMT/OpenNMT-tf#606 (right there).
    """

    last = None

    def reorder(self, rows):
        if self.last is None or not torch.equal(rows, self.last):
            super().reorder(rows)
        self.last = rows.clone()
