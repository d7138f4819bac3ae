"""Wrong after something else that a use has between two calls, or after many or long ones."""

import weakref

import torch

from course_utils.attention import MultiHeadAttention, attention, causal_mask
from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import GrowingCache, PreallocatedCache
from .uses import cut, differs, pick, script, turns, uncached_call, words

TWICE = script(4, pick(1, 2, 0), pick(1, 0, 2), 1, rows=3)


@reported("two_reorders_joined_the_wrong_way", TWICE, script(4, pick(1, 2, 0), 1, rows=3))
class TwoReordersJoinedTheWrongWay(GrowingCache):
    """Rows move at the next call only; two orders become one in the wrong sequence.

    Reported: an order that waits, huggingface/transformers#48700 (another fault there).
    """

    waiting = None

    def reorder(self, rows):
        if self.waiting is not None and len(rows) == len(self.waiting):
            rows = rows[self.waiting]
        elif self.waiting is not None:
            self.move()
        self.waiting, self.batch_size = rows, len(rows)

    def append(self, layer, k, v):
        self.move()
        return super().append(layer, k, v)

    def move(self):
        if self.waiting is not None:
            super().reorder(self.waiting)
            self.waiting = None


MANY_BEAMS = script(4, pick(*(0, 1, 2) * 6), 1, rows=3)


@reported("sixteen_beams", MANY_BEAMS, script(4, pick(2, 1, 0, 0, 1), 1, rows=3))
class SixteenBeams(PreallocatedCache):
    """The list of rows has room for 16; the others are what the last of these is.

    Reported: no one; thought of beside a list of fixed length.
    """

    def reorder(self, rows):
        super().reorder(torch.cat([rows[:16], rows[15:16].expand(max(len(rows) - 16, 0))]))


@torch.no_grad()
def two_reordered(model, right):
    texts = [words(3, 6, seed) for seed in range(2)]
    caches = [model(text[:, :5], use_cache=True)[1] for text in texts]
    orders = torch.tensor([[1, 2, 0], [2, 1, 0]])
    for cache, order in zip(caches, orders, strict=True):
        cache.reorder(order)
    text = torch.cat([texts[0][orders[0], :5], texts[0][:, 5:]], dim=1)
    return differs(model(text[:, 5:], past_kv=caches[0], use_cache=True)[0], right(text)[0][:, 5:])


@reported("one_list_of_rows_for_all", two_reordered, script(4, pick(1, 2, 0), 1, rows=3))
class OneListOfRowsForAll(DecoderOnlyTransformer):
    """The order waits in the model, for whichever cache is used next.

    Reported: no one; thought of beside buffers that a model shares among its texts.
    """

    class Waiting(GrowingCache):
        def __init__(self, model, batch_size):
            super().__init__(model, batch_size)
            self.orders = model.orders

        def reorder(self, rows):
            self.orders[:] = [rows]
            self.batch_size = len(rows)

        def append(self, layer, k, v):
            if layer == 0 and self.orders:
                super().reorder(self.orders.pop())
            return super().append(layer, k, v)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.orders = []

    def new_cache(self, batch_size):
        return self.Waiting(self, batch_size)


def others_come_and_go(number):
    @torch.no_grad()
    def wrong(model, right):
        ids = words(1, 5)
        _, cache = model(ids[:, :4], use_cache=True)
        for seed in range(number):
            model(words(1, 3, seed), use_cache=True)
        logits, _ = model(ids[:, 4:], past_kv=cache, use_cache=True)
        return differs(logits, right(ids)[0][:, 4:])

    return wrong


@reported("thirty_two_slots_in_turn", others_come_and_go(32), others_come_and_go(31))
class ThirtyTwoSlotsInTurn(DecoderOnlyTransformer):
    """Every text takes the next of 32 slots, also one that another text still has.

    Reported: blocks that are given away while in use, local-inference-lab/vllm#480.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.begun = []

    def new_cache(self, batch_size):
        cache = super().new_cache(batch_size)
        self.begun.append(weakref.ref(cache))
        if len(self.begun) > 32 and (before := self.begun[-33]()) is not None:
            before.keys.zero_(), before.values.zero_()
        return cache

    def __getstate__(self):
        return self.__dict__ | {"begun": []}


@reported(
    "block_of_64_closed_once",
    script(70, cut(60), 10, 1),
    script(70, cut(66), 10, 1),
    room=100,
)
class BlockOf64ClosedOnce(PreallocatedCache):
    """A full block is kept apart, and comes back as it was after a rollback into it.

    Reported: no one; thought of beside blocks that are closed when full.
    """

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.closed = {}

    def append(self, layer, k, v):
        keys, values = super().append(layer, k, v)
        if self.lengths[layer] >= 64:
            closed = self.closed.setdefault(
                layer, (keys[:, :, :64].clone(), values[:, :, :64].clone())
            )
            if closed[0].size(0) == keys.size(0):
                keys[:, :, :64], values[:, :, :64] = closed
        return keys, values

    def reorder(self, rows):
        super().reorder(rows)
        self.closed = {layer: (k[rows], v[rows]) for layer, (k, v) in self.closed.items()}


@reported("chunk_as_long_as_what_is_stored", script(16, 16), script(16, 15), room=64)
class ChunkAsLongAsWhatIsStored(MultiHeadAttention):
    """As many new tokens as stored ones, from 16 on, are taken for two prompts side by side.

    Reported: no one; thought of beside kernels that are chosen by shape.
    """

    def attend(self, q, k, v):
        new, stored = q.size(2), k.size(2) - q.size(2)
        mask = causal_mask(new, k.size(2), q.device)
        if new == stored >= 16:
            mask = mask & mask[:, stored:].repeat(1, 2)
        return attention(q, k, v, mask)


@reported("ring_of_64_single_tokens", script(*[1] * 70, 20, 1), script(*[1] * 70), room=120)
class RingOf64SingleTokens(PreallocatedCache):
    """Single tokens wait in a ring of 64 for the next chunk, which finds the last 64 of them.

    Reported: no one; thought of beside a short buffer for new tokens.
    """

    singles = 0

    def append(self, layer, k, v):
        start = self.lengths[layer]
        if k.size(2) > 1 and self.singles > 64:
            lost = slice(start - self.singles, start - 64)
            self.keys[layer, :, :, lost] = self.values[layer, :, :, lost] = 0
        if layer == len(self.lengths) - 1:
            self.singles = self.singles + 1 if k.size(2) == 1 else 0
        return super().append(layer, k, v)

    def truncate(self, length):
        super().truncate(length)
        self.singles = 0


@torch.no_grad()
def more_rows_uncached(model, right):
    ids = words(1, 5)
    _, cache = model(ids[:, :4], use_cache=True)
    model(words(3, 5, seed=1))
    return differs(model(ids[:, 4:], past_kv=cache, use_cache=True)[0], right(ids)[0][:, 4:])


@reported("workspace_grows_with_the_rows", more_rows_uncached, script(4, uncached_call, 1))
class WorkspaceGrowsWithTheRows(DecoderOnlyTransformer):
    """A call of more rows than any before, also one without a cache, takes new memory for all.

    Reported: no one; thought of beside memory that is taken for the largest batch so far.
    """

    most, texts = 0, ()

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if len(input_ids) > self.most and not use_cache:
            for cache in self.texts:
                cache.keys.zero_(), cache.values.zero_()
        self.most = max(self.most, len(input_ids))
        logits, cache = super().forward(input_ids, past_kv, use_cache)
        self.texts = (cache,) if use_cache else ()
        return logits, cache


def talk_of_two_rows(model, right):
    ids = torch.cat([model.generate(words(2, 4), 3, temperature=0), words(2, 2, seed=1)], dim=1)
    found = model.generate(ids, 3, temperature=0)
    return not torch.equal(found, right.generate(ids, 3, temperature=0, use_cache=False))


@reported("talk_of_the_first_row", talk_of_two_rows, turns(4, 3, 2, 3), room=64)
class TalkOfTheFirstRow(DecoderOnlyTransformer):
    """What was said is kept for the next turn: of the first row, for all rows.

    Reported: no one; thought of beside sessions that hold one text.
    """

    said = None

    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True, **options):
        said = self.said
        goes_on = use_cache and said is not None and said.size(1) < input_ids.size(1)
        if goes_on and torch.equal(said, input_ids[:, : said.size(1)]):
            input_ids = torch.cat([said[:1].expand_as(said), input_ids[:, said.size(1) :]], dim=1)
        ids = input_ids
        self.said = super().generate(ids, max_new_tokens, temperature, use_cache, **options)
        return self.said
