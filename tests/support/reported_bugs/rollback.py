"""Wrong after a rollback: `truncate`, and what comes next."""

import torch

from .entry import reported
from .parts import Counted, Flushed, GrowingCache, PreallocatedCache, check_rollback
from .uses import cut, pick, script


@reported("rollback_to_zero_ignored", script(5, cut(0), 3), script(5, cut(3), 2))
class RollbackToZeroIgnored(PreallocatedCache):
    """A length of 0 is taken for "remove none", and everything stays.

    Reported: crop of a large library, huggingface/transformers#47433.
    """

    def truncate(self, length):
        if length:
            super().truncate(length)


@reported("rollback_empties", script(6, cut(4), 1), script(6, cut(0), 3))
class RollbackEmpties(Counted):
    """A rollback empties the cache, and sets only the count of positions to the length asked for.

    Reported: speculative decoding on a GPU, paiml/aprender#2014.
    """

    def truncate(self, length):
        super().truncate(length)
        self.hold(0)


@reported("rollback_undone_by_append", script(6, cut(4), 1), script(6, 1))
class RollbackUndoneByAppend(GrowingCache):
    """A rollback changes the count only; the next append counts what is held, and all is back.

    Reported: a cache that grows by concatenation, ml-explore/mlx-lm#1502.
    """

    offset = None

    @property
    def length(self):
        return super().length if self.offset is None else self.offset

    def append(self, layer, k, v):
        self.offset = None
        return super().append(layer, k, v)

    def truncate(self, length):
        check_rollback(length, self.length)
        self.offset = length


@reported("rollback_remembers_the_last", script(6, cut(3), 4, cut(6), 1), script(6, cut(4), 3))
class RollbackRemembersTheLast(PreallocatedCache):
    """How far a rollback goes is computed with a number that is left from the one before.

    Reported: speculative decoding, ml-explore/mlx-lm#1528.
    """

    last = None

    def truncate(self, length):
        super().truncate(length if self.last is None else min(length, self.last))
        self.last = length


@reported("rollback_of_nothing_empties", script(5, cut(5), 1), script(5, cut(3), 2))
class RollbackOfNothingEmpties(Counted):
    """The last n columns are cut off by [:-n], which for n = 0 cuts off everything.

    Reported: the slice in huggingface/transformers#46235, Sudharsanselvaraj/Token-Print#268.
    """

    def truncate(self, length):
        check_rollback(length, self.length)
        self.hold(-(self.length - length))
        self.positions = [length] * len(self.positions)


@reported("rollback_forgets_the_frontier", script(10, cut(5), 2), script(10, cut(9), 2))
class RollbackForgetsTheFrontier(Flushed):
    """A rollback does not reach the closed blocks, which go on being read.

    Reported: a cache that compresses full blocks, rajveer43/VeloxQuant-MLX#369.
    """

    def truncate(self, length):
        PreallocatedCache.truncate(self, length)


@reported("rollback_short_in_some_layers", script(10, cut(3), 2), script(10, cut(7), 2))
class RollbackShortInSomeLayers(PreallocatedCache):
    """Every layer goes back as far as it can, all but the first by 4 at most, and nobody compares.

    Reported: layers of different kinds, ml-explore/mlx-lm#1494.
    """

    def truncate(self, length):
        stored = self.length
        super().truncate(length)
        self.lengths[1:] = [max(length, stored - 4) for _ in self.lengths[1:]]


@reported("rollback_by_the_step", script(300, cut(270), 2), script(300, cut(200), 2), room=320)
class RollbackByTheStep(PreallocatedCache):
    """How much to cut is computed from the buffer's step of 256: beyond it nothing is cut.

    Reported: a local server, nicedreamzapp/claude-code-local#47.
    """

    def truncate(self, length):
        if length <= 256:
            super().truncate(length)


class KeepsOld(PreallocatedCache):
    """After a rollback, a part of what was taken back is not overwritten."""

    high = 0

    def truncate(self, length):
        self.high = max(self.high, self.length)
        super().truncate(length)

    def append(self, layer, k, v):
        start = self.lengths[layer]
        end = min(start + k.size(2), self.high)
        stale = [part[..., start:end, :] for part in self.parts(layer)]
        kept = [part.clone() for part in stale]
        found = super().append(layer, k, v)
        for part, old in zip(stale, kept, strict=True):
            part.copy_(old)
        return found


@reported("rollback_of_the_first_row", script(6, cut(4), 1, rows=2), script(6, cut(4), 1))
class RollbackOfTheFirstRow(KeepsOld):
    """The first row goes back; the others keep what was taken back.

    Reported: speculative decoding of a batch, Blaizzy/mlx-vlm#1155.
    """

    def parts(self, layer):
        return self.keys[layer, 1:], self.values[layer, 1:]


@reported("rollback_of_the_keys", script(6, cut(4), 1), script(6, cut(6), 1))
class RollbackOfTheKeys(KeepsOld):
    """The keys go back, the values do not.

    Reported: student repositories (no address).
    """

    def parts(self, layer):
        return (self.values[layer],)


@reported("rollback_leaves_zeros", script(8, cut(5), 1), script(8, cut(7), 1))
class RollbackLeavesZeros(PreallocatedCache):
    """What is taken back is set to zero and stays in sight: a key of zeros has a weight too.

    Reported: speculative decoding of a batch, Blaizzy/mlx-vlm#1962.
    """

    high = 0

    def truncate(self, length):
        self.high = max(self.high, self.length)
        super().truncate(length)

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        left = max(0, self.high - self.lengths[layer])
        return [torch.cat([torch.zeros_like(part[:, :, :left]), part], 2) for part in found]


@reported("rollback_to_a_page_boundary", script(12, cut(8), 1), script(12, cut(7), 1))
class RollbackToAPageBoundary(Counted):
    """The last page holds length % 8 positions, so after a rollback to a multiple of 8 none.

    Reported: callers of paged kernels (no address).
    """

    def truncate(self, length):
        super().truncate(length)
        if length and length % 8 == 0:
            self.hold(length - 8)


@reported("full_ring_is_not_set_back", script(24, cut(20), 1), script(23, cut(20), 1))
class FullRingIsNotSetBack(PreallocatedCache):
    """Once the ring is full a rollback is refused, without a word: only the count changes.

    Reported: ml-explore/mlx-swift-lm#424 and #584, ml-explore/mlx-lm#1512.
    """

    kept = None

    def truncate(self, length):
        if self.length == self.keys.size(3) and length < self.length:
            self.kept = length, self.keys.clone(), self.values.clone()
        super().truncate(length)

    def append(self, layer, k, v):
        start = self.lengths[layer]
        found = super().append(layer, k, v)
        if self.kept is not None:
            for part, old in zip(found, self.kept[1:], strict=True):
                part[:, :, start:] = old[layer, :, :, start : start + k.size(2)]
        return found


@reported(
    "third_rollback_in_a_row",
    script(12, cut(10), cut(8), cut(6), 1),
    script(12, cut(10), cut(8), 1),
)
class ThirdRollbackInARow(PreallocatedCache):
    """Rollbacks are noted in a list of two until the next append, and a third one is lost.

    Reported: verification of drafts (no address).
    """

    noted = 0

    def truncate(self, length):
        check_rollback(length, self.length)
        self.noted += 1
        if self.noted <= 2:
            super().truncate(length)
        else:
            self.count = length

    count = None

    @property
    def length(self):
        return self.lengths[0] if self.count is None else self.count

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        if layer == len(self.lengths) - 1:
            self.noted, self.count = 0, None
        return found


@reported(
    "rollback_right_after_a_reorder",
    script(6, pick(1, 0), cut(4), 1, rows=2),
    script(6, cut(4), pick(1, 0), 1, rows=2),
)
class RollbackRightAfterAReorder(PreallocatedCache):
    """A rollback before anything is appended undoes the reorder, too.

    Reported: snapshots for rejected drafts (no address).
    """

    before = None

    def reorder(self, rows):
        self.before = self.keys, self.values, self.batch_size
        super().reorder(rows)

    def append(self, layer, k, v):
        self.before = None
        return super().append(layer, k, v)

    def truncate(self, length):
        if self.before is not None and length < self.length and self.before[2] == self.batch_size:
            self.keys, self.values, _ = self.before
        super().truncate(length)
