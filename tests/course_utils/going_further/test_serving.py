"""The rooms of chapter 10: no block is lost, no text changed, no odds moved, and the checks see it
when one is."""

import inspect
import math
import random
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import cases_for, random_ids, small_model
from source import bodies, code_of

from course_utils.evaluation import kv_evaluate, uncached
from course_utils.going_further import serving
from course_utils.going_further.serving import checks, speculative
from course_utils.going_further.serving import figures as plots
from course_utils.going_further.serving.block_tables import (
    BlockPool,
    BlockTables,
    OutOfBlocks,
    Table,
)
from course_utils.going_further.serving.engine import DryEngine, Engine
from course_utils.going_further.serving.paged_cache import PagedCache, PagedRows, PagedTransformer
from course_utils.going_further.serving.scheduling import Request, StepTimes
from course_utils.transformer import ROOT

NOTEBOOK = ROOT / "notebooks" / "going_further" / "10_many_users.ipynb"


# Blocks and tables


class Tokens(BlockTables):
    """Tables whose blocks hold tokens, so that what a table reads back can be compared."""

    def __init__(self, num_blocks, block_size):
        super().__init__(num_blocks, block_size)
        self.places = [None] * (num_blocks * block_size)

    def copy(self, old, new):
        size = self.block_size
        self.places[new * size : (new + 1) * size] = self.places[old * size : (old + 1) * size]

    def write(self, table, tokens):
        for place, token in zip(self.claim(table, len(tokens)), tokens, strict=True):
            self.places[place] = token
        table.length += len(tokens)

    def read(self, table):
        size = self.block_size
        found = [
            self.places[table.blocks[i // size] * size + i % size] for i in range(table.length)
        ]
        return found


def holders(tables, sequences):
    held = [block for table in sequences for block in table.blocks]
    return [held.count(block) for block in range(len(tables.pool.references))]


def change_at_random(tables, rng, steps):
    """Random forks, writes, rollbacks and ends; after each, every table reads what it wrote."""
    texts = []  # pairs: a table and what it should hold
    for _ in range(steps):
        action = rng.choice(["begin", "write", "write", "write", "fork", "truncate", "drop"])
        try:
            if action == "begin" or not texts:
                tokens = [rng.randrange(2) for _ in range(rng.randint(1, 7))]
                table = tables.adopt(tokens)
                texts.append((table, tokens[: table.length]))
                assert tables.read(table) == tokens[: table.length]
                tables.write(table, tokens[table.length :])
                texts[-1] = table, tokens
                tables.publish(table, tokens)
            else:
                at = rng.randrange(len(texts))
                table, tokens = texts[at]
                if action == "write":
                    new = [rng.randrange(2) for _ in range(rng.randint(1, 5))]
                    tables.write(table, new)
                    texts[at] = table, tokens + new
                elif action == "fork":
                    texts.append((tables.fork(table), list(tokens)))
                elif action == "truncate":
                    keep = rng.randint(0, table.length)
                    tables.truncate(table, keep)
                    texts[at] = table, tokens[:keep]
                    if rng.random() < 0.5:
                        tables.publish(table, tokens[:keep])
                else:
                    tables.drop(table)
                    del texts[at]
        except OutOfBlocks:
            pass
        for table, tokens in texts:
            assert tables.read(table) == tokens
        assert holders(tables, [table for table, _ in texts]) == tables.pool.references
        assert sorted(tables.pool.free) == [
            block for block, count in enumerate(tables.pool.references) if count == 0
        ]
        for prefix, block in tables.prefixes.items():
            size = tables.block_size
            inside = tables.places[block * size : (block + 1) * size]
            assert inside == list(prefix[-size:])
    for table, _ in texts:
        tables.drop(table)
    assert tables.used == 0 and not tables.prefixes and not tables.known_for


@pytest.mark.parametrize("block_size", [1, 2, 3, 5])
def test_tables_read_what_they_wrote_and_lose_no_block(block_size):
    for seed in range(60):
        change_at_random(Tokens(8, block_size), random.Random(seed), steps=40)


def no_copy_on_write(self, table, count):
    missing = self.blocks_for(table.length + count) - len(table.blocks)
    table.blocks += [self.pool.allocate() for _ in range(missing)]


def never_forgets(self, block):
    pass


def truncate_keeps_blocks(self, table, length):
    table.length = length


def copies_without_release(self, table, count):
    before = list(table.blocks)
    BlockTables.reserve(self, table, count)
    for old, new in zip(before, table.blocks, strict=False):
        if old != new:
            self.pool.references[old] += 1


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        ("reserve", no_copy_on_write),
        ("reserve", copies_without_release),
        ("forget", never_forgets),
        ("truncate", truncate_keeps_blocks),
        ("copy", lambda self, old, new: None),
    ],
)
def test_broken_tables_are_seen(method, broken):
    class Broken(Tokens):
        pass

    setattr(Broken, method, broken)
    with pytest.raises((AssertionError, KeyError, ValueError, IndexError)):
        for seed in range(60):
            change_at_random(Broken(8, 3), random.Random(seed), steps=40)


def test_the_last_token_of_a_prompt_is_always_run():
    tables, first = Tokens(8, 2), Table()
    tables.write(first, [5, 6, 7, 8])
    tables.publish(first, [5, 6, 7, 8])
    assert tables.adopt([5, 6, 7, 8]).length == 2
    assert tables.adopt([5, 6, 7, 8, 9]).length == 4
    assert tables.adopt([5, 6, 0, 8, 9]).length == 2
    assert tables.adopt([0, 6, 7, 8, 9]).length == 0


# The model over a paged cache


@pytest.mark.parametrize("block_size", [1, 5])
def test_the_paged_cache_is_right(block_size):
    model = small_model(PagedTransformer)
    model.block_size = block_size
    report = kv_evaluate(model, cases_for(model, shapes=((1, 4),)))
    assert report.all_passed, report.problems


def test_rows_of_different_length_give_what_each_gives_alone():
    model = small_model(PagedTransformer)
    rows = [random_ids(1, n, seed=n)[0] for n in (3, 9, 14)]
    pages = PagedCache(model, num_blocks=12, block_size=4)
    tables = [Table() for _ in rows]
    with torch.no_grad():
        for row, table in zip(rows, tables, strict=True):
            model(row[None, :-2], PagedRows(pages, [table]), use_cache=True)
        found, _ = model(
            torch.stack([row[-2:] for row in rows]), PagedRows(pages, tables), use_cache=True
        )
    for row, logits in zip(rows, found, strict=True):
        assert torch.allclose(logits, uncached(model, row[None])[0, -2:], rtol=0, atol=1e-9)


def test_too_few_blocks_are_an_error_and_the_texts_stay():
    model = small_model(PagedTransformer)
    rows = PagedRows(PagedCache(model, num_blocks=2, block_size=4), [Table()])
    with torch.no_grad():
        model(random_ids(1, 6), rows, use_cache=True)
        with pytest.raises(OutOfBlocks, match="3 more positions take 1 blocks, .* 0 are free"):
            model(random_ids(1, 3), rows, use_cache=True)
        assert rows.length == 6
        model(random_ids(1, 2), rows, use_cache=True)
    assert rows.nbytes == rows.cache.keys.nbytes + rows.cache.values.nbytes


# The engine


@cache
def tiny():
    model = PagedTransformer(20, 8, 16, 1, 32, num_heads=2, dropout=0.0).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.double))
    return model


@cache
def alone(prompt):
    ids = torch.tensor([prompt])
    return tiny().generate(ids, 8, temperature=0, use_cache=False)[0].tolist()


OPENINGS = [tuple(random.Random(i).choices(range(20), k=10)) for i in range(3)]


def one_schedule(seed, engine_class=Engine, cache_class=PagedCache):
    """Serve random requests in a random little memory; returns the engine."""
    rng = random.Random(seed)
    block_size = rng.randint(1, 4)
    requests = [
        Request(
            list(rng.choice(OPENINGS)[: rng.randint(1, 8)]), rng.randint(1, 6), rng.uniform(0, 6)
        )
        for _ in range(rng.randint(1, 4))
    ]
    needed = [math.ceil((len(r.prompt) + r.new_tokens - 1) / block_size) for r in requests]
    pages = cache_class(tiny(), max(needed) + rng.randint(0, max(needed)), block_size)
    share = rng.random() < 0.8
    engine = engine_class(tiny(), pages, rng.randint(1, 4), share, lambda rows, each: 1.0)

    def look():
        tables = [request.table for request in engine.running]
        assert holders(pages, tables) == pages.pool.references
        engine.steps = getattr(engine, "steps", 0) + 1
        assert engine.steps < 1000

    engine.serve(requests, after_step=look)
    assert pages.used == 0 and not pages.prefixes
    for request in requests:
        assert request.done and len(request.tokens) == len(request.times) == request.new_tokens
        expected = alone(tuple(request.prompt))[: len(request.text)]
        assert request.text == expected, "another text than alone"
    return engine


def test_a_thousand_schedules_lose_no_block_and_change_no_text():
    adopted = []

    class Counting(PagedCache):
        def adopt(self, tokens):
            table = super().adopt(tokens)
            adopted.append(table.length)
            return table

    engines = [one_schedule(seed, cache_class=Counting) for seed in range(1000)]
    assert sum(engine.preempted for engine in engines) > 100
    assert sum(adopted) > 500


def keeps_what_is_done(engine_class):
    class Broken(engine_class):
        def run(self, requests, new):
            for request in requests:
                if len(request.tokens) + 1 == request.new_tokens:
                    self.cache.fork(request.table)
            super().run(requests, new)

    return Broken


class PreemptsWithoutText(Engine):
    def preempt(self, request):
        super().preempt(request)
        request.tokens[-1:] = [0]


class PreemptsWithoutRelease(Engine):
    def preempt(self, request):
        self.cache.fork(request.table)
        super().preempt(request)


class AdoptsByBlockAlone(PagedCache):
    """Takes a block for the same tokens, whatever came before them."""

    def publish(self, table, tokens):
        size = self.block_size
        for end in range(size, min(len(tokens), table.length) + 1, size):
            key = tuple(tokens[end - size : end])
            if key not in self.prefixes and table.blocks[end // size - 1] not in self.known_for:
                self.prefixes[key] = table.blocks[end // size - 1]
                self.known_for[table.blocks[end // size - 1]] = key

    def adopt(self, tokens):
        table, size = Table(), self.block_size
        for end in range(size, len(tokens), size):
            block = self.prefixes.get(tuple(tokens[end - size : end]))
            if block is None:
                break
            table.blocks.append(self.pool.share(block))
            table.length = end
        return table


class NoMaskBehindTheEnd(PagedRows):
    def prepare(self, count):
        super().prepare(count)
        self.mask = self.mask | True


def test_an_engine_that_loses_blocks_or_words_is_seen(monkeypatch):
    def seen(**kinds):
        with pytest.raises((AssertionError, OutOfBlocks)):
            for seed in range(150):
                one_schedule(seed, **kinds)

    seen(engine_class=keeps_what_is_done(Engine))
    seen(engine_class=PreemptsWithoutText)
    seen(engine_class=PreemptsWithoutRelease)
    seen(cache_class=AdoptsByBlockAlone)
    monkeypatch.setattr("course_utils.going_further.serving.engine.PagedRows", NoMaskBehindTheEnd)
    seen()


def test_the_newest_is_preempted_and_comes_back_first():
    engine = DryEngine(None, BlockTables(4, 2), 4, share=False, seconds=lambda rows, each: 1.0)
    first, second, third = (Request([1, 1], 5) for _ in range(3))
    for request in (first, second, third):
        engine.submit(request)
    engine.step()
    assert engine.running == [first, second] and engine.waiting == [third]
    while engine.preempted == 0:
        engine.step()
    assert first in engine.running and engine.waiting == [second, third]
    engine.serve([])
    assert first.times[-1] < second.times[-1] < third.times[-1]


def test_a_request_that_can_never_fit_is_refused_with_the_numbers():
    engine = DryEngine(None, BlockTables(3, 4), 4)
    with pytest.raises(ValueError, match="take 4 blocks of 4 positions; the pool has 3"):
        engine.submit(Request([1] * 6, 8))
    engine.submit(Request([1] * 6, 7))
    with pytest.raises(ValueError, match="needs a prompt"):
        engine.submit(Request([], 7))


def test_blocks_that_somebody_else_holds_end_in_an_error_not_in_waiting():
    tables = BlockTables(3, 4)
    tables.reserve(Table(), 8)
    engine = DryEngine(None, tables, 4, seconds=lambda rows, each: 1.0)
    with pytest.raises(OutOfBlocks):
        engine.serve([Request([1] * 6, 7)])


def test_with_memory_enough_the_engine_decides_as_the_simulation():
    seconds = StepTimes(pd.Series({1: 1.0, 8: 2.0}), pd.Series({1: 1.0, 9: 3.0}))
    prompts = [[1] * n for n in (2, 5, 9)]
    requests, again = (serving.poisson(0.2, 60, 3, prompts, 6) for _ in range(2))
    serving.simulate(requests, seconds, 4, serving.continuous)
    pages = BlockTables(1000, 4)
    DryEngine(None, pages, 4, share=False, seconds=seconds).serve(again)
    assert [r.times for r in requests] == [r.times for r in again]


def test_the_schedules_by_hand():
    def steps(schedule):
        requests = [Request([0, 0], n) for n in (5, 2, 2, 2)]
        useful = serving.simulate(requests, lambda rows, each: float(each == 1), 2, schedule)
        assert sum(useful) == 4 + 1 + 1 + 1
        return [request.times[-1] for request in requests]

    assert steps(serving.static) == [4, 1, 5, 5]
    assert steps(serving.continuous) == [4, 1, 2, 3]


def test_times_of_steps_lie_on_straight_lines_between_what_was_measured():
    seconds = StepTimes(pd.Series({1: 1.0, 3: 2.0}), pd.Series({4: 1.0, 8: 5.0}))
    assert seconds(2, 1) == 1.5 and seconds(1, 6) == 3.0 and seconds(2, 3) == 3.0


def test_measured_times_are_of_the_model_s_own_steps():
    model = small_model(PagedTransformer, dtype=torch.float32)
    found = serving.measure(model, (1, 2), (1, 8), positions=8, rounds=2)
    assert list(found.decode.index) == [1, 2] and list(found.prefill.index) == [1, 8]
    assert (found.decode > 0).all() and (found.prefill > 0).all()


def test_arrivals_have_the_rate_and_the_length_that_were_asked_for():
    requests = serving.poisson(5.0, 4000, 0, [[1]], 20)
    gaps = np.diff([request.arrival for request in requests])
    assert abs(gaps.mean() - 0.2) < 0.02 and abs(gaps.std() - 0.2) < 0.02
    assert abs(np.mean([r.new_tokens for r in requests]) - 20) < 1.5
    assert min(r.new_tokens for r in requests) == 2


def test_the_report_counts_from_the_arrival():
    one = Request([1], 2, arrival=1.0, tokens=[0, 0], times=[2.0, 5.0])
    found = serving.report([one])
    assert found["latency"] == 2 and found["first"] == 1 and found["tokens/s"] == 0.5


# Speculation


def adversary(ids, count):
    return torch.full((count,), 7), speculative.certain(torch.full((count,), 7), 50)


def nobody(ids, count):
    return ids[:0], speculative.certain(ids[:0], 50)


def drafts_for(model, ids, steps):
    """Drafts that are always right, mostly, by the text, never, and silent."""
    text = model.generate(ids, steps, temperature=0)[0]

    def prophet(seen, count):
        guesses = text[len(seen) : len(seen) + count]
        return guesses, speculative.certain(guesses, 50)

    half_right = small_model()
    with torch.no_grad():
        half_right.output_projection.weight.add_(
            0.3 * torch.randn_like(half_right.output_projection.weight)
        )
    return {
        "prophet": prophet,
        "model": speculative.ModelDraft(half_right),
        "lookup": speculative.PromptLookup(50, ngram=1),
        "adversary": adversary,
        "nobody": nobody,
    }


@pytest.mark.parametrize("kind", [None, PagedTransformer])
def test_speculation_writes_what_greedy_decoding_writes(kind):
    for seed in range(3):
        model = small_model(seed=seed) if kind is None else small_model(kind, seed=seed)
        ids = random_ids(1, 4, seed=seed)
        for steps in (1, 20):  # 20 fills the room of 24
            plain = model.generate(ids, steps, temperature=0)
            for name, draft in drafts_for(model, ids, steps).items():
                for guesses in (1, 3, 30):
                    found, brought = speculative.speculate(model, ids, steps, draft, guesses)
                    assert torch.equal(found, plain), name
                    assert sum(brought) == steps
                    if name == "prophet":
                        assert len(brought) == math.ceil(steps / (guesses + 1))
                    if name == "nobody":
                        assert brought == [1] * steps


def test_rolled_back_guesses_give_their_blocks_back():
    model = small_model(PagedTransformer)
    rows = PagedRows(PagedCache(model, 24, block_size=1), [Table()])
    ids = random_ids(1, 4)
    found, _ = speculative.speculate(model, ids, 8, adversary, 5, past_kv=rows)
    assert rows.length == rows.cache.used == found.size(1) - 1


def test_without_the_rollback_the_words_are_others(monkeypatch):
    model = small_model()

    def only_counted(self, length):
        self.lengths = [length] + self.lengths[1:]

    monkeypatch.setattr("course_utils.kv_cache.PreallocatedCache.truncate", only_counted)
    ids = random_ids(1, 4)
    plain = model.generate(ids, 12, temperature=0, use_cache=False)
    with pytest.raises((AssertionError, RuntimeError)):
        assert torch.equal(speculative.speculate(model, ids, 12, adversary, 3)[0], plain)


def test_a_draft_that_is_a_model_keeps_its_own_cache_right():
    model = small_model()
    draft = speculative.ModelDraft(model)
    text = random_ids(1, 24)[0]
    for length in (4, 6, 5, 9, 3, 12):
        found, _ = draft(text[:length], 4)
        expected = model.generate(text[None, :length], 4, temperature=0)[0, length:]
        assert torch.equal(found, expected)


def test_requests_that_cannot_be_carried_out_are_refused():
    with pytest.raises(ValueError, match="one prompt"):
        speculative.speculate(small_model(), random_ids(2, 4), 2, nobody)
    with pytest.raises(ValueError, match="do not fit"):
        speculative.speculate(small_model(), random_ids(1, 4), 21, nobody)


def test_prompt_lookup_by_hand():
    lookup = speculative.PromptLookup(10, ngram=2)
    guesses = [lookup(torch.tensor(ids), 3)[0].tolist() for ids in ([1, 2, 3, 4, 1, 2], [1, 2, 3])]
    assert guesses == [[3, 4, 1], []]
    assert lookup(torch.tensor([1, 2, 3, 1, 2, 4, 1, 2]), 2)[0].tolist() == [4, 1]
    assert lookup(torch.tensor([5]), 2)[0].tolist() == []


def test_counts_by_hand():
    draft = speculative.CountTable([[1, 2, 3, 1, 2, 3, 1, 2, 4]], 10, context=2)
    assert draft(torch.tensor([9, 1, 2]), 3)[0].tolist() == [3, 1, 2]
    assert draft(torch.tensor([2, 4]), 3)[0].tolist() == []


def test_chi_square_is_pearson_s():
    found = speculative.chi_square(torch.tensor([10, 20, 30]), torch.tensor([1 / 3] * 3))
    assert found == pytest.approx(math.exp(-5), rel=1e-5)  # statistic 10, two degrees of freedom


def word_models():
    return [small_model(seed=s, vocab_size=3, num_layers=1, max_seq_len=8) for s in (0, 1)]


def exact_odds(model, ids):
    with torch.no_grad():
        first = model(ids)[0][0, -1].div(3).softmax(-1)
        two = torch.cat([ids.expand(3, -1), torch.arange(3)[:, None]], dim=1)
        return (first[:, None] * model(two)[0][:, -1].div(3).softmax(-1)).flatten()


def counted(draws, **wrong):
    """Texts of two tokens at temperature 3 by the whole loop, each with caches of its own."""
    target, guesser = word_models()
    ids, generator = torch.tensor([[0, 2]]), torch.Generator().manual_seed(0)
    texts = []
    for _ in range(draws):
        draft = speculative.ModelDraft(guesser, wrong.get("temperature", 3.0), generator)
        found, _ = speculative.speculate(target, ids, 2, draft, 2, 3.0, generator)
        texts.append(3 * found[0, 2] + found[0, 3])
    exact = exact_odds(target, ids)
    assert draws * exact.min() > 5
    return speculative.chi_square(torch.bincount(torch.stack(texts), minlength=9), exact)


def test_sampled_speculation_has_the_model_s_odds():
    assert counted(700) > 0.001


def test_the_test_of_the_odds_sees_a_wrong_residual(monkeypatch):
    monkeypatch.setattr(speculative, "residual", lambda p, q: p)
    assert counted(700) < 1e-4


# The chapter and the package


@pytest.mark.parametrize(
    ("room", "names"),
    [
        (serving.static, ["static"]),
        (serving.continuous, ["continuous"]),
        (BlockPool, ["allocate", "share", "release"]),
        (BlockTables, ["reserve"]),
        (speculative.accept_greedy, ["accept_greedy"]),
        (speculative.residual, ["residual"]),
    ],
)
def test_the_chapter_and_the_package_are_the_same_code(room, names):
    built = bodies(code_of(NOTEBOOK))[room.__name__]
    held = bodies(inspect.getsource(room))[room.__name__]
    for name in names:
        assert built[name] == held[name]


def lines_of(ax):
    return [list(line.get_ydata()) for line in ax.get_lines()]


def test_figures_draw_what_they_are_given():
    times = StepTimes(pd.Series({1: 0.001, 4: 0.002}), pd.Series({1: 0.001}))
    left, right = plots.company(times).axes
    assert [1, 2] in lines_of(left) and [1, 4] in lines_of(left)
    assert [1000, 2000] in lines_of(right)

    row = {"asked": 5.0, "tokens/s": 4.0, "latency": 0.02, "latency of the slowest 5 %": 0.5}
    left, right = plots.load(pd.DataFrame([row | {"policy": "a"}, row | {"policy": "b"}])).axes
    assert lines_of(left).count([4]) == 2
    assert lines_of(right).count([20]) == lines_of(right).count([500]) == 2

    one, two = Request([1], 2, times=[1.0, 3.0]), Request([1], 2, times=[0.0, 1.0])
    (ax,) = plots.timelines({"hand": [two, one]}, max_rows=1).axes
    assert [(p.get_x(), p.get_width()) for p in ax.patches] == [(0, 1), (1, 2)]

    found = pd.DataFrame([{"draft": "x", "guesses": g, "tokens": g, "faster": 1.5} for g in (1, 2)])
    left, right = plots.speculation(found).axes
    assert [1, 2] in lines_of(left) and [1.5, 1.5] in lines_of(right)

    waste = pd.DataFrame({"wasted": [0.1], "predicted": [0.2], "rows": [3.0]}, index=[16])
    left, right = plots.fragmentation(waste).axes
    assert [10] in lines_of(left) and [20] in lines_of(left) and [3] in lines_of(right)

    (ax,) = plots.widths(pd.DataFrame({1: [2.0, 3.0], 8: [2.0, 8.0]}, index=[1, 2])).axes
    assert [1, 1.5] in lines_of(ax) and [1, 4] in lines_of(ax)

    exact, shares = np.array([0.5, 0.5]), {"x": np.array([0.4, 0.6])}
    (ax,) = plots.distributions(exact, shares, ["a", "b"], draws=100).axes
    assert [bar.get_height() for bar in ax.containers[0]] == pytest.approx([-2, 2])

    (ax, *_) = plots.blocks({"hand": ([["Mia"], []], ["A", ""])}, block_size=2).axes
    assert [text.get_text() for text in ax.texts] == ["Mia", "A", ""]


def test_partial_progress_is_for_this_chapter():
    assert isinstance(checks.progress, partial)
    assert list(checks.EXERCISES) == ["10"]
