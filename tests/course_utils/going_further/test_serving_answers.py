"""Answers to the exercises on many users, wrong and right ones (chapter 10)."""

import heapq

import pytest
import torch
import torch.nn.functional as F

from course_utils.going_further.serving import checks, speculative, static
from course_utils.going_further.serving.block_tables import BlockPool, BlockTables, OutOfBlocks

pytestmark = pytest.mark.authors


def refused(check, answer, words):
    with pytest.raises(AssertionError, match=words) as error:
        check(answer)
    assert "Error at" not in str(error.value) or "raised" in str(error.value)


# Who joins


def staying(running):
    return [request for request in running if not request.done]


def joining(choose):
    """A schedule that lets those stay who should, and chooses among the waiting."""
    return lambda w, r, n: (staying(r), choose(list(w), n - len(staying(r))))


def removes_while_it_looks(waiting, running, max_rows):
    running = list(running)
    for request in running:
        if request.done:
            running.remove(request)
    return running, waiting[: max_rows - len(running)]


def takes_them_off_the_queue(waiting, running, max_rows):
    stay = staying(running)
    joins = [waiting.pop(0) for _ in range(min(max_rows - len(stay), len(waiting)))]
    return stay, joins


def removes_from_the_batch(waiting, running, max_rows):
    for request in staying(running)[:0] or [r for r in running if r.done]:
        running.remove(request)
    return running, waiting[: max_rows - len(running)]


def one_for_one(waiting, running, max_rows):
    """As many join as leave: rows that were free before stay free."""
    stay = staying(running)
    return stay, waiting[: len(running) - len(stay)]


CONTINUOUS = [
    (static, "leaves, and who is not|nobody has to wait"),
    (lambda w, r, n: (r, w[: n - len(r)]), "Who is done leaves"),
    (lambda w, r, n: (r, w[: n - len(staying(r))]), "Who is done leaves"),
    (joining(lambda w, free: w), "more than there are free rows"),
    (lambda w, r, n: (staying(r), w[:n]), "more than there are free rows"),
    (lambda w, r, n: (staying(r), w[: max(0, n - len(r))]), "rows of those who are done"),
    (joining(lambda w, free: w[:1] if free else []), "every free row"),
    (joining(lambda w, free: []), "free, too"),
    (joining(lambda w, free: w[::-1][:free]), "from the head of the queue"),
    (joining(lambda w, free: w[-free:] if free else []), "from the head of the queue"),
    (joining(lambda w, free: w[: free - 1] if free else []), "every free row"),
    (joining(lambda w, free: w[: free + 1]), "more than there are free rows"),
    (joining(lambda w, free: sorted(w, key=lambda x: x.new_tokens)[:free]), "from the head"),
    (joining(lambda w, free: sorted(w, key=lambda x: len(x.prompt))[:free]), "from the head"),
    (lambda w, r, n: (staying(r), w[len(r) - n :] if n > len(r) else []), "free, too"),
    (one_for_one, "every free row|nobody has to wait"),
    (removes_while_it_looks, "Who is done leaves"),
    (takes_them_off_the_queue, "changes the lists that came in"),
    (removes_from_the_batch, "changes the lists that came in"),
    (lambda w, r, n: staying(r) + w[:1], "two lists"),
    (lambda w, r, n: None, "two lists"),
    (lambda w, r, n: (tuple(staying(r)), w[: n - len(staying(r))]), "two lists"),
    (lambda w, r, n: (w[: n - len(staying(r))], staying(r)), "the other way round"),
    (lambda w, r, n: ([x for x in r if x.done], w[: n - len(r)]), "Who is done leaves"),
    (lambda w, r, n: (staying(r[::-1]), w[: n - len(staying(r))]), "in the same order"),
    (
        lambda w, r, n: (
            staying(r),
            w if len(w) <= n - len(staying(r)) else w[: n - len(staying(r))],
        ),
        "new list",
    ),
    (
        lambda w, r, n: ([x for x in r if len(x.tokens) <= x.new_tokens], w[: n - len(r)]),
        "Who is done leaves",
    ),
    (
        lambda w, r, n: ([x for x in r if x.done is None], w[:n]),
        "Who is done leaves, and who is not stays",
    ),
    (lambda w, r, n: ([x for x in r if not x.is_done()], w[:n]), "raised AttributeError"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), CONTINUOUS)
def test_a_wrong_schedule(answer, words):
    refused(checks.check_continuous, answer, words)


def by_appending(waiting, running, max_rows):
    stay, join = [r for r in running if len(r.tokens) < r.new_tokens], []
    for request in waiting:
        if len(stay) + len(join) < max_rows:
            join.append(request)
    return stay, join


def by_arrival(waiting, running, max_rows):
    queue = sorted(waiting, key=lambda request: request.arrival)
    stay = list(filter(lambda request: not request.done, running))
    return stay, queue[: max(0, max_rows - len(stay))]


def same_batch(waiting, running, max_rows):
    if not any(request.done for request in running):
        return running, waiting[: max_rows - len(running)]
    stay = running.copy()
    for request in running:
        if request.done:
            stay.remove(request)
    free = max_rows - len(stay)
    return stay, [waiting[i] for i in range(min(free, len(waiting)))]


def by_zip(waiting, running, max_rows):
    stay = [r for r in running if not r.done]
    return stay, [w for w, _ in zip(waiting, range(max_rows - len(stay)), strict=False)]


@pytest.mark.parametrize("answer", [by_appending, by_arrival, same_batch, by_zip])
def test_a_right_schedule(answer):
    assert "right" in checks.check_continuous(answer)


# The allocator


class Mine(BlockPool):
    """The course's, one of whose methods may be replaced by a function."""


def pool(**methods):
    return type("Mine", (Mine,), methods)


def allocates(take):
    def allocate(self):
        if not self.free:
            raise OutOfBlocks("none")
        return take(self)

    return pool(allocate=allocate)


def shares(do):
    def share(self, block):
        if self.references[block] == 0:
            raise ValueError("free")
        return do(self, block)

    return pool(share=share)


def releases(do):
    def release(self, block):
        if self.references[block] == 0:
            raise ValueError("free")
        do(self, block)

    return pool(release=release)


def hold(self, block, holders=1):
    self.references[block] = holders
    return block


def add(self, block, holders=1):
    self.references[block] += holders
    return block


def double_free(self, block):
    self.references[block] -= 1
    if self.references[block] <= 0:
        self.free.append(block)


def frees_at_once(self, block):
    self.references[block] = 0
    self.free.append(block)


def frees_early(self, block):
    self.references[block] -= 1
    if self.references[block] <= 1:
        self.free.append(block)


def frees_always(self, block):
    self.references[block] -= 1
    self.free.append(block)


def raises_late(self, block):
    self.references[block] -= 1
    if self.references[block] < 0:
        raise ValueError("free already")
    if self.references[block] == 0:
        self.free.append(block)


def loses_the_others(self, block):
    self.references[block] -= 1
    if self.references[block] == 0:
        self.free = [block]


def puts_back_the_first(self, block):
    self.references[block] -= 1
    if self.references[block] == 0:
        self.free.append(0)


def counts_late(self):
    block = self.free.pop()
    self.references[block] += 1
    if not self.free:
        raise OutOfBlocks("none")
    return block


def shares_after_the_change(self, block):
    self.references[block] += 1
    if self.references[block] == 1:
        raise ValueError("free")
    return block


def takes_a_free_one(self, block):
    if block in self.free:
        self.free.remove(block)
    self.references[block] += 1
    return block


def never_raises(self):
    return hold(self, self.free.pop()) if self.free else None


def asserts(self, block):
    assert self.references[block] > 0
    self.references[block] += 1
    return block


def another_error(self):
    if not self.free:
        raise MemoryError("none")
    return hold(self, self.free.pop())


class OneList(BlockPool):
    """All pools keep their books in the same lists."""

    references, free = [0] * 3, [2, 1, 0]

    def __init__(self, num_blocks):
        if len(self.references) != num_blocks:
            type(self).references = [0] * num_blocks
            type(self).free = list(range(num_blocks))


def wrong_block(self):
    block = self.free[0]
    self.free.pop()
    return hold(self, block)


POOLS = [
    (pool(release=double_free), "expected ValueError for a block that is free"),
    (releases(frees_at_once), "one holder less"),
    (releases(frees_early), "another holder"),
    (releases(frees_always), "another holder"),
    (releases(lambda self, block: add(self, block, -1)), "free is \\[.*\\], expected"),
    (releases(lambda self, block: self.free.append(block)), "references is"),
    (pool(release=raises_late), "a call that is refused changes nothing"),
    (releases(loses_the_others), "free is \\[0\\], expected"),
    (releases(puts_back_the_first), "free is"),
    (pool(release=lambda self, block: None), "release"),
    (pool(share=add), "expected ValueError for a block that is free"),
    (pool(share=shares_after_the_change), "a call that is refused changes nothing"),
    (pool(share=takes_a_free_one), "expected ValueError for a block that is free"),
    (pool(share=asserts), "AssertionError.*expected ValueError"),
    (shares(lambda self, block: add(self, block) and None), "must return the block"),
    (shares(lambda self, block: self.references[add(self, block)]), "must return the block"),
    (shares(lambda self, block: block), "references is .* one holder more"),
    (shares(lambda self, block: add(self, block, 2)), "one holder more"),
    (shares(lambda self, block: hold(self, block, 2)), "one holder more"),
    (shares(lambda self, block: self.allocate()), "share"),
    (pool(allocate=never_raises), "expected OutOfBlocks when no block is free"),
    (pool(allocate=lambda self: hold(self, self.free.pop())), "IndexError.*expected OutOfBlocks"),
    (pool(allocate=another_error), "MemoryError.*expected OutOfBlocks"),
    (allocates(lambda self: hold(self, self.free[-1])), "no longer free"),
    (allocates(lambda self: self.free.pop()), "one holder"),
    (allocates(lambda self: hold(self, self.free.pop(), 2)), "one holder"),
    (allocates(lambda self: hold(self, self.free.pop()) and None), "free block"),
    (allocates(lambda self: [hold(self, self.free.pop())]), "free block"),
    (pool(allocate=counts_late), "raised OutOfBlocks"),
    (allocates(wrong_block), "no longer free"),
    (OneList, "Two pools"),
    (pool(__init__=lambda self, n: setattr(self, "free", n - [])), "cannot be made: raised TypeE"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), POOLS)
def test_a_wrong_pool(answer, words):
    refused(checks.check_block_pool, answer, words)


class OldestFirst(BlockPool):
    """Another way: what is free longest goes first."""

    def __init__(self, num_blocks):
        self.references = [0] * num_blocks
        self.free = list(range(num_blocks))

    def allocate(self):
        try:
            block = self.free.pop(0)
        except IndexError:
            raise OutOfBlocks("none left") from None
        self.references[block] += 1
        return block


class SmallestFirst(BlockPool):
    def allocate(self):
        if len(self.free) == 0:
            raise OutOfBlocks
        heapq.heapify(self.free)
        block = heapq.heappop(self.free)
        self.references[block] = 1
        return block

    def release(self, block):
        if block in self.free:
            raise ValueError(block)
        if self.references[block] == 1:
            self.free.insert(0, block)
        self.references[block] -= 1


class ByTheCounts(BlockPool):
    def allocate(self):
        if 0 not in self.references:
            raise OutOfBlocks("all taken")
        block = self.references.index(0)
        self.free.remove(block)
        self.references[block] = 1
        return block

    def share(self, block):
        if not self.references[block]:
            raise ValueError
        self.references[block] = self.references[block] + 1
        return block


class ASet(BlockPool):
    def __init__(self, num_blocks):
        self.references = dict.fromkeys(range(num_blocks), 0)
        self.free = set(range(num_blocks))

    def allocate(self):
        if not self.free:
            raise OutOfBlocks
        block = self.free.pop()
        self.references[block] = 1
        return block

    def release(self, block):
        if self.references[block] == 0:
            raise ValueError
        self.references[block] -= 1
        if self.references[block] == 0:
            self.free.add(block)


@pytest.mark.parametrize("answer", [OldestFirst, SmallestFirst, ByTheCounts, ASet])
def test_a_right_pool(answer):
    assert "right" in checks.check_block_pool(answer)


# Copy on write


def tables(reserve, **attributes):
    return type("Mine", (BlockTables,), {"reserve": reserve} | attributes)


def planned(
    shared=lambda self, table, written: [i for i in written if held(self, table, i) > 1],
    written=lambda self, table, end: range(
        table.length // self.block_size, min(end, len(table.blocks))
    ),
    end=lambda self, table, count: self.blocks_for(table.length + count),
    missing=lambda self, table, end: max(0, end - len(table.blocks)),
    needed=lambda shared, missing: shared + missing,
    replace=lambda self, table, i: replaces(self, table, i),
):
    """`reserve` with one of its steps written otherwise."""

    def reserve(self, table, count):
        last = end(self, table, count)
        copied = shared(self, table, written(self, table, last))
        new = missing(self, table, last)
        if needed(len(copied), new) > len(self.pool.free):
            raise OutOfBlocks("too few")
        for i in copied:
            replace(self, table, i)
        table.blocks += [self.pool.allocate() for _ in range(new)]

    return tables(reserve)


def held(self, table, i):
    return self.pool.references[table.blocks[i]]


def replaces(self, table, i):
    old, table.blocks[i] = table.blocks[i], self.pool.allocate()
    self.copy(old, table.blocks[i])
    self.release(old)


def keeps_the_old(self, table, i):
    old, table.blocks[i] = table.blocks[i], self.pool.allocate()
    self.copy(old, table.blocks[i])


def copies_backwards(self, table, i):
    old, table.blocks[i] = table.blocks[i], self.pool.allocate()
    self.copy(table.blocks[i], old)
    self.release(old)


def copies_nothing(self, table, i):
    old, table.blocks[i] = table.blocks[i], self.pool.allocate()
    self.release(old)


def appends_the_copy(self, table, i):
    new = self.pool.allocate()
    self.copy(table.blocks[i], new)
    self.release(table.blocks[i])
    table.blocks.append(new)


def copies_by_its_place(self, table, i):
    old, table.blocks[i] = table.blocks[i], self.pool.allocate()
    self.copy(i, table.blocks[i])
    self.release(old)


def without_a_plan(self, table, count):
    """Takes what it can, and raises in the middle."""
    first = table.length // self.block_size
    for i in range(first, min(self.blocks_for(table.length + count), len(table.blocks))):
        if held(self, table, i) > 1:
            replaces(self, table, i)
    while len(table.blocks) < self.blocks_for(table.length + count):
        table.blocks.append(self.pool.allocate())


def rolls_back_half(self, table, count):
    """Gives back what was allocated, but the table keeps its copies."""
    before = len(table.blocks)
    try:
        without_a_plan(self, table, count)
    except OutOfBlocks:
        while len(table.blocks) > before:
            self.release(table.blocks.pop())
        raise


def raises_afterwards(self, table, count):
    """Changes the table first and raises when it finds that blocks are missing."""
    needed = max(0, self.blocks_for(table.length + count) - len(table.blocks))
    for i in range(table.length // self.block_size, len(table.blocks)):
        if held(self, table, i) > 1 and self.pool.free:
            replaces(self, table, i)
    if needed > len(self.pool.free):
        raise OutOfBlocks("too few")
    table.blocks += [self.pool.allocate() for _ in range(needed)]


def appending(new):
    """`reserve` of a table that nobody shares, with other ways to come by a block."""

    def reserve(self, table, count):
        missing = max(0, self.blocks_for(table.length + count) - len(table.blocks))
        if missing > len(self.pool.free):
            raise OutOfBlocks("too few")
        table.blocks += new(self, table, missing)

    return tables(reserve)


def marked_as_taken(self, table, missing):
    """Their holders are counted, but they stay in the list of free ones."""
    blocks = self.pool.free[-missing:] if missing else []
    for block in blocks:
        self.pool.references[block] = 1
    return blocks


def moves_the_length(self, table, count):
    BlockTables.reserve(self, table, count)
    table.length += count


def returns_instead_of_raising(self, table, count):
    try:
        BlockTables.reserve(self, table, count)
    except OutOfBlocks:
        return False
    return True


def another_kind_of_error(self, table, count):
    try:
        BlockTables.reserve(self, table, count)
    except OutOfBlocks as error:
        raise ValueError("too few") from error


def always_allocates(self, table, count):
    table.blocks += [self.pool.allocate() for _ in range(self.blocks_for(count))]


def no_copy_on_write(self, table, count):
    while len(table.blocks) < self.blocks_for(table.length + count):
        table.blocks.append(self.pool.allocate())


RESERVES = [
    (tables(no_copy_on_write), "needs a block of its own|OutOfBlocks"),
    (
        appending(lambda self, table, missing: [self.pool.allocate()] * missing),
        "expected such as were free, each once",
    ),
    (
        appending(lambda self, table, missing: [len(table.blocks) + i for i in range(missing)]),
        "counts 0 holders",
    ),
    (
        appending(lambda self, table, missing: [self.pool.free.pop() for _ in range(missing)]),
        "counts 0 holders",
    ),
    (appending(marked_as_taken), "and free is"),
    (tables(always_allocates), "expected 2|Count what"),
    (tables(without_a_plan), "Count what is needed first"),
    (tables(rolls_back_half), "Count what is needed first"),
    (tables(raises_afterwards), "1 to be copied"),
    (tables(moves_the_length), "changed the length"),
    (tables(returns_instead_of_raising), "expected OutOfBlocks"),
    (tables(another_kind_of_error), "ValueError.*expected OutOfBlocks"),
    (planned(needed=lambda shared, missing: missing), "Count what is needed first"),
    (planned(needed=lambda shared, missing: shared), "Count what is needed first"),
    (planned(needed=max), "Count what is needed first"),
    (planned(needed=lambda shared, missing: shared + missing + 1), "are enough"),
    (planned(needed=lambda shared, missing: 0), "Count what is needed first"),
    (
        planned(missing=lambda self, table, end: end - len(table.blocks)),
        "Count what is needed first",
    ),
    (
        planned(shared=lambda self, table, w: [i for i in w if held(self, table, i) > 1][:1]),
        "needs a block of its own",
    ),
    (
        planned(shared=lambda self, table, w: [i for i in w if held(self, table, i) > 1][-1:]),
        "needs a block of its own",
    ),
    (
        planned(shared=lambda self, table, w: [i for i in w if held(self, table, i) == 2]),
        "to be copied",
    ),
    (
        planned(shared=lambda self, table, w: [i for i in w if held(self, table, i) > 2]),
        "needs a block of its own",
    ),
    (planned(shared=lambda self, table, w: list(w)), "nobody else|are enough"),
    (planned(shared=lambda self, table, w: []), "needs a block of its own"),
    (
        planned(written=lambda self, table, end: range(min(end, len(table.blocks)))),
        "stays shared|are enough",
    ),
    (
        planned(
            written=lambda self, t, end: range(t.length // self.block_size, len(t.blocks)),
        ),
        "stays shared|are enough",
    ),
    (
        planned(
            written=lambda self, table, end: range(
                self.blocks_for(table.length), min(end, len(table.blocks))
            )
        ),
        "needs a block of its own",
    ),
    (
        planned(
            written=lambda self, table, end: range(
                max(0, table.length - 1) // self.block_size, min(end, len(table.blocks))
            )
        ),
        "stays shared|are enough",
    ),
    (
        planned(
            written=lambda self, table, end: range(
                table.length // self.block_size, min(end - 1, len(table.blocks))
            )
        ),
        "needs a block of its own",
    ),
    (planned(end=lambda self, table, count: self.blocks_for(count)), "has .* blocks, expected"),
    (
        planned(end=lambda self, table, count: (table.length + count) // self.block_size + 1),
        "has .* blocks, expected|are enough",
    ),
    (
        planned(end=lambda self, table, count: (table.length + count) // self.block_size),
        "has .* blocks, expected",
    ),
    (
        planned(missing=lambda self, table, end: end),
        "has .* blocks, expected|are enough",
    ),
    (planned(replace=keeps_the_old), "Release the old one"),
    (planned(replace=copies_backwards), "copied \\(from, to\\)"),
    (planned(replace=copies_nothing), "copied \\(from, to\\)"),
    (planned(replace=copies_by_its_place), "copied \\(from, to\\)"),
    (planned(replace=appends_the_copy), "blocks"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), RESERVES)
def test_a_wrong_reserve(answer, words):
    refused(checks.check_reserve, answer, words)


def by_trying(self, table, count):
    """Takes blocks until there are none, and puts everything back."""
    own = list(table.blocks)
    first, end = table.length // self.block_size, self.blocks_for(table.length + count)
    taken = []
    try:
        for i in range(first, end):
            if i >= len(own) or held(self, table, i) >= 2:
                taken.append((i, self.pool.allocate()))
    except OutOfBlocks:
        for _, block in reversed(taken):
            self.pool.release(block)
        raise
    for i, block in taken:
        if i < len(table.blocks):
            self.copy(table.blocks[i], block)
            self.pool.release(table.blocks[i])
            table.blocks[i] = block
        else:
            table.blocks.append(block)


def a_new_list(self, table, count):
    size, blocks, todo = self.block_size, [], []
    last = (table.length + count - 1) // size
    for i in range(max(last + 1, len(table.blocks))):
        there = table.blocks[i] if i < len(table.blocks) else None
        fresh = there is None or (
            table.length // size <= i <= last and self.pool.references[there] != 1
        )
        todo.append((there, fresh))
    if sum(fresh for _, fresh in todo) > len(self.pool.free):
        raise OutOfBlocks
    for there, fresh in todo:
        blocks.append(self.pool.allocate() if fresh else there)
        if fresh and there is not None:
            self.pool.release(there)
            self.copy(there, blocks[-1])
    table.blocks = blocks


def by_position(self, table, count):
    """Place by place, as the positions come."""
    needed = []
    for position in range(table.length, table.length + count):
        i = position // self.block_size
        if i not in needed and (i >= len(table.blocks) or held(self, table, i) > 1):
            needed.append(i)
    if self.used + len(needed) > len(self.pool.references):
        raise OutOfBlocks(f"{len(needed)} blocks")
    for i in needed:
        if i < len(table.blocks):
            replaces(self, table, i)
        else:
            table.blocks.append(self.pool.allocate())


@pytest.mark.parametrize(
    "answer",
    [
        BlockTables,
        tables(by_trying),
        tables(a_new_list),
        tables(by_position),
        tables(BlockTables.reserve, pool_class=ASet),
        tables(by_position, pool_class=OldestFirst),
    ],
)
def test_a_right_reserve(answer):
    assert "right" in checks.check_reserve(answer)


def test_a_wrong_pool_is_not_put_down_to_reserve():
    answer = tables(BlockTables.reserve, pool_class=releases(frees_early))
    refused(checks.check_reserve, answer, "is right, with the course's BlockPool.*exercise 2")


# Which guesses are kept


def kept(guesses, likeliest):
    return int((guesses == likeliest[:-1]).long().cumprod(0).sum())


def first_mistake(guesses, likeliest):
    return int((guesses != likeliest[:-1]).long().argmax())


def writes_into_the_guesses(guesses, likeliest):
    right = kept(guesses, likeliest)
    if right < len(guesses):
        guesses[right] = likeliest[right]
        return guesses[: right + 1]
    return likeliest


ACCEPTS = [
    (lambda g, m: m[: kept(g, m)], "one token more"),
    (lambda g, m: g[: kept(g, m)], "one token more"),
    (lambda g, m: m[: (g == m[:-1]).sum() + 1], "later ones were made for another text"),
    (lambda g, m: torch.cat([g[: kept(g, m)], m[-1:]]), "of \\*that\\* place"),
    (lambda g, m: g[: kept(g, m) + 1], "model's own token"),
    (lambda g, m: m[: (g == m[1:]).long().cumprod(0).sum() + 1], "likeliest\\[i\\] is what"),
    (lambda g, m: torch.tensor(kept(g, m) + 1), "tokens"),
    (lambda g, m: kept(g, m) + 1, "tokens"),
    (lambda g, m: m, "later ones were made for another text"),
    (lambda g, m: m[: kept(g, m) + 2], "later ones were made for another text"),
    (lambda g, m: m[: first_mistake(g, m) + 1], "."),
    (lambda g, m: m[:-1][g == m[:-1]], "."),
    (lambda g, m: torch.cat([m[:-1][g == m[:-1]], m[-1:]]), "."),
    (lambda g, m: m if (g == m[:-1]).all() else m[:1], "."),
    (lambda g, m: m[: kept(g, m) + 1].tolist(), "a list"),
    (lambda g, m: m[None, : kept(g, m) + 1], "shape"),
    (lambda g, m: m[: kept(g, m) + 1].float(), "dtype torch.float32"),
    (lambda g, m: m[: (g == m[:-1]).nonzero()[-1] + 2], "."),
    (lambda g, m: m[kept(g, m) :], "."),
    (lambda g, m: m[kept(g, m)], "."),
    (lambda g, m: torch.cat([m[: kept(g, m)], m[kept(g, m) + 1 :]]), "."),
    (lambda g, m: m[: (g == m).sum()], "raised RuntimeError at"),
    (lambda g, m: None, "None"),
    (writes_into_the_guesses, "changes a tensor that came in"),
    (lambda g, m: m[: int((g == m[:-1]).long().cumprod(0).argmin()) + 1], "."),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), ACCEPTS)
def test_wrong_guesses_kept(answer, words):
    refused(checks.check_accept_greedy, answer, words)


def accept_by_loop(guesses, likeliest):
    found = []
    for guess, token in zip(guesses.tolist(), likeliest.tolist(), strict=False):
        found.append(token)
        if guess != token:
            return torch.tensor(found)
    return torch.tensor([*found, likeliest[-1].item()])


def accept_by_mistakes(guesses, likeliest):
    wrong = (guesses != likeliest[: len(guesses)]).nonzero().flatten()
    return likeliest[: wrong[0] + 1] if len(wrong) else likeliest.clone()


def accept_by_sum(guesses, likeliest):
    before = F.pad((guesses != likeliest[:-1]).long().cumsum(0), (1, 0))
    return likeliest[before == 0]


def accept_by_guesses(guesses, likeliest):
    right = 0
    while right < len(guesses) and guesses[right] == likeliest[right]:
        right += 1
    return torch.cat([guesses[:right], likeliest[right : right + 1]])


@pytest.mark.parametrize(
    "answer", [accept_by_loop, accept_by_mistakes, accept_by_sum, accept_by_guesses]
)
def test_right_guesses_kept(answer):
    assert "right" in checks.check_accept_greedy(answer)


# What is left of p


def left(p, q):
    more = (p - q).clamp(min=0)
    return more, more.sum(-1, keepdim=True)


def one_zero_row_and_all_are_p(p, q):
    more, total = left(p, q)
    return p if (total == 0).any() else more / total


def only_if_all_rows_are_zero(p, q):
    more, total = left(p, q)
    return p if (total == 0).all() else more / total


def in_place(p, q):
    p -= q
    return speculative.residual(p, torch.zeros_like(q))


def clamped_in_place(p, q):
    more = torch.sub(p, q, out=p).clamp_(min=0)
    return more / more.sum(-1, keepdim=True)


def with_guard(total, more, p):
    return torch.where(total > 0, more, p)


RESIDUALS = [
    (lambda p, q: p, "That is p"),
    (lambda p, q: q, "That is q"),
    (lambda p, q: left(p, q)[0], "does not sum to 1"),
    (lambda p, q: p - q, "below 0"),
    (lambda p, q: speculative.residual(q, p), "where q exceeds p"),
    (lambda p, q: F.normalize((p - q).abs(), p=1, dim=-1), "brought too much already"),
    (lambda p, q: left(p, q)[0] / left(p, q)[1], "NaN.*return p"),
    (only_if_all_rows_are_zero, "NaN.*return p"),
    (one_zero_row_and_all_are_p, "row by row|each row"),
    (lambda p, q: left(p, q)[0] / left(p, q)[0].sum(), "sum is over the last dimension"),
    (lambda p, q: speculative.residual(p, q)[0], "shape"),
    (lambda p, q: left(p, q)[0] / (left(p, q)[1] + 1e-9), "return p|added"),
    (lambda p, q: left(p, q)[0] / (left(p, q)[1] + 1e-6), "return p|added"),
    (lambda p, q: left(p, q)[0] / left(p, q)[1].clamp(min=1e-12), "return p"),
    (lambda p, q: F.normalize(left(p, q)[0], p=1, dim=-1), "return p"),
    (lambda p, q: (left(p, q)[0] / left(p, q)[1]).nan_to_num(0.0), "return p"),
    (
        lambda p, q: (left(p, q)[0] / left(p, q)[1]).nan_to_num(1 / p.size(-1)),
        "return p",
    ),
    (lambda p, q: torch.softmax(p - q, -1), "softmax"),
    (lambda p, q: torch.softmax(left(p, q)[0], -1), "softmax"),
    (lambda p, q: p * (p > q) / (p * (p > q)).sum(-1, keepdim=True), "by how much"),
    (in_place, "changes a tensor that came in"),
    (clamped_in_place, "changes a tensor that came in"),
    (lambda p, q: speculative.residual(p.float(), q.float()), "dtype torch.float32"),
    (lambda p, q: speculative.residual(p.double(), q.double()), "dtype torch.float64"),
    (lambda p, q: speculative.residual(p, q).squeeze(), "."),
    (lambda p, q: p @ q, "raised RuntimeError at"),
    (lambda p, q: None, "None"),
    (
        lambda p, q: torch.where(left(p, q)[1] > 1e-3, left(p, q)[0] / left(p, q)[1], p),
        "however small",
    ),
    (
        lambda p, q: torch.where(left(p, q)[1] > 0, left(p, q)[0] / left(p, q)[0].sum(0), p),
        ".",
    ),
    (
        lambda p, q: with_guard(left(p, q)[1], left(p, q)[0], p),
        "does not sum to 1",
    ),
    (
        lambda p, q: torch.where(left(p, q)[1] > 0, torch.zeros(p.shape) + left(p, q)[0], p),
        ".",
    ),
    (lambda p, q: speculative.residual(p, q) + torch.zeros(p.shape, dtype=p.dtype), "device"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), RESIDUALS)
def test_a_wrong_residual(answer, words):
    refused(checks.check_residual, answer, words)


def test_an_in_place_change_is_not_called_nan():
    with pytest.raises(AssertionError) as error:
        checks.check_residual(in_place)
    assert "NaN" not in str(error.value)


def residual_by_minimum(p, q):
    more = p - torch.minimum(p, q)
    total = more.sum(-1, keepdim=True).expand_as(more)
    return torch.where(total == 0, p, more / total)


def residual_by_rows(p, q):
    rows = []
    for mine, theirs in zip(p.reshape(-1, p.size(-1)), q.reshape(-1, q.size(-1)), strict=True):
        more = [max(0.0, x - y) for x, y in zip(mine.tolist(), theirs.tolist(), strict=True)]
        total = sum(more)
        rows.append([x / total for x in more] if total else mine.tolist())
    return torch.tensor(rows, dtype=p.dtype).view(p.shape)


def residual_by_masks(p, q):
    more = torch.relu(p - q)
    nothing = (more == 0).all(-1)
    more[nothing] = p[nothing]
    return more / more.sum(-1, keepdim=True)


def residual_of_numbers(p, q):
    more = torch.clamp(p - q, min=0)
    return (more / more.sum(-1, keepdim=True)).where((p > q).any(-1, keepdim=True), p)


def residual_by_einsum(p, q):
    more = torch.max(p - q, torch.zeros_like(p))
    total = torch.einsum("...v->...", more)
    more, total = more + p * (total == 0)[..., None], total.masked_fill(total == 0, 1)
    return torch.einsum("...v,...->...v", more, 1 / total)


def residual_with_threshold(p, q):
    more = (p - q).clamp(min=0)
    total = more.sum(-1, keepdim=True)
    return torch.where(total > 1e-8, more / total.clamp(min=1e-12), p)


@pytest.mark.parametrize(
    "answer",
    [
        residual_by_minimum,
        residual_by_rows,
        residual_by_masks,
        residual_of_numbers,
        residual_by_einsum,
        residual_with_threshold,
    ],
)
def test_a_right_residual(answer):
    assert "right" in checks.check_residual(answer)
