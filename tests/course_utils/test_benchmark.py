"""The sweep's bookkeeping on made-up clocks, and its checks on caches that do not help."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_ids, small_model

from course_utils import benchmark, checks
from course_utils.benchmark import CACHES, GROWING, NO_CACHE, PREALLOCATED
from course_utils.evaluation import Report, Result


def made_up(step_seconds, rounds=benchmark.ROUNDS, noise=0.1):
    """A sweep whose n-th token takes `step_seconds[contender](n)`, with some noise."""
    rng = np.random.default_rng(0)

    def run(model, prompt, tokens, contender):
        n = np.arange(1, tokens + 1)
        return np.cumsum(step_seconds[contender](n) * rng.uniform(1 - noise, 1 + noise, tokens))

    return benchmark.sweep(None, None, rounds, contenders=tuple(step_seconds), run=run)


def quadratic(n):
    return 1e-3 + 1e-6 * n + 3e-8 * n**2


def nearly_flat(n):
    return 1e-3 + 1e-7 * n


HEALTHY = {NO_CACHE: quadratic, GROWING: nearly_flat, PREALLOCATED: nearly_flat}


def test_sweep_counts_every_token_of_every_round():
    times = made_up(HEALTHY, rounds=(30, 20), noise=0)
    assert len(times) == 3 * (30 + 20)
    assert list(times.groupby("round")["tokens"].max()) == [30, 20]
    table = benchmark.totals(times, [10, 30])
    expected = quadratic(np.arange(1, 31)).sum()
    assert table.loc[30, (NO_CACHE, "median")] == pytest.approx(expected)
    assert (table[NO_CACHE]["min"] <= table[NO_CACHE]["max"]).all()


def test_per_token_leaves_the_prefill_out():
    slow_start = {NO_CACHE: lambda n: np.where(n == 1, 100.0, 1.0)}
    steps = benchmark.per_token(made_up(slow_start, rounds=(4, 4), noise=0))
    assert steps["high"].max() == 1.0


def test_healthy_timings_pass():
    times = made_up(HEALTHY)
    checks.check_all_lengths_timed(times, benchmark.LENGTHS)
    checks.check_cached_steps_grow_slowly(benchmark.per_token(times))
    checks.check_speed_up_rises(times)
    checks.check_total_is_polynomial(times)
    checks.check_sweep(times)


# Seconds of the n-th token on other processors than the author's: starting a pass is slow and
# arithmetic fast, or the other way round; and a growing cache that is slow to copy.
MACHINES = {
    "fast arithmetic": HEALTHY | {NO_CACHE: lambda n: 1.7e-3 + 3e-6 * n + 2e-9 * n**2},
    "slow arithmetic": {
        NO_CACHE: lambda n: 3e-3 + 6e-4 * n + 6e-7 * n**2,
        GROWING: lambda n: 3e-3 + 3e-6 * n,
        PREALLOCATED: lambda n: 3e-3 + 1e-6 * n,
    },
    "slow memory": HEALTHY | {GROWING: lambda n: 1e-3 + 4e-6 * n},
    "pairs dominate": HEALTHY | {NO_CACHE: lambda n: 1e-3 + 2e-8 * n**2},
}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_asked_of_a_sweep_holds_on_other_processors(machine):
    checks.check_sweep(made_up(MACHINES[machine], noise=0.25))


@pytest.mark.parametrize("contender", [GROWING, PREALLOCATED])
def test_a_cache_that_does_not_help_is_seen(contender):
    times = made_up(HEALTHY | {contender: quadratic})
    with pytest.raises(AssertionError, match=f"With the {contender}"):
        checks.check_cached_steps_grow_slowly(benchmark.per_token(times))
    with pytest.raises(AssertionError, match=f"The {contender} makes 1000 tokens"):
        checks.check_speed_up_rises(times)
    with pytest.raises(AssertionError, match=contender):
        checks.check_sweep(times)


def test_a_missing_length_is_seen():
    with pytest.raises(AssertionError, match="Timings are missing"):
        checks.check_sweep(made_up(HEALTHY, rounds=(500, 500)))


def switched_off(model, prompt, num_tokens, contender):
    """A run that says it has a cache and quietly generates without one."""
    return benchmark.token_times(model, prompt, num_tokens, NO_CACHE)


@pytest.fixture
def one_thread():
    """Two wait for each other in every pass: for ever so long while other programs are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("run", "helps"), [(benchmark.token_times, True), (switched_off, False)])
def test_real_timings_tell_a_working_cache_from_one_switched_off(run, helps, one_thread):
    torch.manual_seed(0)
    model = small_model(dtype=torch.float32, d_model=64, d_ff=256, max_seq_len=640, num_layers=1)
    contenders = (NO_CACHE, PREALLOCATED)

    def measure():
        return benchmark.sweep(model, random_ids(1, 10), (400, 400, 400), contenders, run)

    def check(times):
        checks.check_cached_steps_grow_slowly(benchmark.per_token(times))

    if helps:
        benchmark.measure_until(measure, check)
    else:
        with pytest.raises(AssertionError, match="Measured 1 times.*use_cache"):
            benchmark.measure_until(measure, check, attempts=1)


def test_growth_exponent_of_a_power_law():
    tokens = np.geomspace(64, 1024, 9)
    noise = np.random.default_rng(0).uniform(0.95, 1.05, 9)
    exponent, low, high = benchmark.growth_exponent(tokens, 3e-6 * tokens**1.8 * noise)
    assert low < 1.8 < high
    assert exponent == pytest.approx(1.8, abs=0.05)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda n: np.exp(n / 100), "between 2 and 8 times"),
        (lambda n: np.exp(n / 250) / np.where(n > 1, 250, 1), "squared with each doubling"),
        (lambda n: 1 / n, "between 2 and 8 times"),
        (lambda n: n**4, "between 2 and 8 times"),
    ],
)
def test_growth_that_no_power_between_1_and_3_explains_is_seen(step, words):
    times = made_up({NO_CACHE: step, PREALLOCATED: nearly_flat})
    with pytest.raises(AssertionError, match=words):
        checks.check_total_is_polynomial(times)


def test_misfit_tells_a_power_law_from_an_exponential():
    tokens = np.geomspace(64, 1024, 9)
    for law, seconds in (("power", tokens**2), ("exponential", np.exp(tokens / 200))):
        other = {"power": "exponential", "exponential": "power"}[law]
        assert benchmark.misfit(tokens, seconds, law) < 1e-9
        assert benchmark.misfit(tokens, seconds, other) > 0.3


def test_a_law_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="law='powre': choose power or exponential"):
        benchmark.misfit([1, 2, 4], [1.0, 2.0, 4.0], "powre")


@pytest.mark.parametrize("points", [0, 2])
def test_a_growth_exponent_needs_three_points(points):
    tokens = [10, 20, 40][:points]
    with pytest.raises(ValueError, match=f"at least 3 points, and {points} came"):
        benchmark.growth_exponent(tokens, tokens)


def test_a_contender_that_is_not_known_is_not_timed_as_another():
    with pytest.raises(ValueError, match="contender='growing': choose one of 'no cache', "):
        benchmark.token_times(small_model(), random_ids(1, 3), 2, "growing")


def test_cost_model_recovers_its_constants():
    model = small_model()
    tokens = np.arange(20, 1000, 40)
    work = np.array([benchmark.operations(model, n, n) for n in tokens])
    steps = pd.DataFrame({"contender": NO_CACHE, "tokens": tokens, "median": 2e-3 + work / 5e9})
    overhead, rate = benchmark.cost_model(model, steps)
    assert overhead == pytest.approx(2e-3)
    assert rate == pytest.approx(5e9)


def test_the_contenders_really_use_their_caches(monkeypatch):
    model = small_model()
    used = []
    for name, cache in CACHES.items():
        if cache is not None:
            original = cache.append

            def spy(self, *args, name=name, original=original):
                used.append(name)
                return original(self, *args)

            monkeypatch.setattr(cache, "append", spy)
    for contender in CACHES:
        used.clear()
        assert len(benchmark.token_times(model, random_ids(1, 3), 4, contender)) == 4
        assert set(used) == ({contender} if contender != NO_CACHE else set())


def test_prefill_times_have_a_row_for_each_length_and_contender():
    table = benchmark.prefill_times(small_model(), lengths=(2, 8), rounds=2)
    assert len(table) == 4
    assert (table[["low", "median", "high"]] > 0).all(axis=None)


def test_check_report():
    passed = Result("case 0", "1 x 2", checks=1)
    checks.check_report(Report("Title", 1e-9, [passed]))
    failed = Result("case 1", "1 x 2", checks=1, problems=["first differs at position 3"])
    with pytest.raises(AssertionError, match="1 of 2 cases passed. case 1: first differs"):
        checks.check_report(Report("Title", 1e-9, [passed, failed]))
    with pytest.raises(AssertionError, match="no check was run"):
        checks.check_report(Report("Title", 1e-9, []))


def test_a_short_untimed_generation_goes_before_each_timed_one():
    runs = []

    def run(model, prompt, num_tokens, contender):
        runs.append((contender, num_tokens))
        return [float(n + 1) for n in range(num_tokens)]

    times = benchmark.sweep(None, None, (100, 30), contenders=("A", "B"), run=run)
    first = [("A", 20), ("A", 100), ("B", 20), ("B", 100)]
    assert runs == [*first, ("A", 20), ("A", 30), ("B", 20), ("B", 30)]
    assert len(times) == 260


def test_a_measurement_is_repeated_until_it_holds_and_no_longer():
    times = iter([3, 1, 4, 1])

    def small(n):
        assert n < 2, f"{n} is large."

    assert benchmark.measure_until(lambda: next(times), small) == 1
    assert next(times) == 4
    taken = []
    with pytest.raises(AssertionError, match="Measured 2 times, and each time: 9 is large"):
        benchmark.measure_until(lambda: taken.append(1) or 9, small, attempts=2)
    assert len(taken) == 2


def rounds_of_parts(waiting=(0.0, 0.0, 0.0, 0.0), interrupted=0):
    """Forty made-up rounds; layers wait, and `interrupted` rounds take ten times as long."""
    rng, rows = np.random.default_rng(0), []
    for r in range(40):
        for i, wait in enumerate([0.0, *waiting, 0.0]):
            name = "embeddings" if i == 0 else "output" if i == 5 else f"layer {i}"
            busy = rng.uniform(1, 1.1, 2) * np.where(r < interrupted, [10, 1], 1)
            whole, direct = 1e-3 * busy
            rows.append((name, r, 56, whole * (1 + wait), direct))
    return pd.DataFrame(rows, columns=["part", "round", "calls", "whole", "direct"])


@pytest.mark.parametrize("interrupted", [0, 30])
def test_interruptions_are_left_out_of_the_parts(interrupted):
    parts = rounds_of_parts(interrupted=interrupted)
    checks.check_parts(parts)
    assert list(benchmark.undisturbed(parts).index) == list(dict.fromkeys(parts["part"]))
    assert benchmark.undisturbed(parts)["ratio"].between(0.9, 1.1).all()


@pytest.mark.parametrize(
    ("waiting", "named"),
    [((0, 0, 0.8, 0), "layer 3"), ((0.8, 0.8, 0.8, 0.8), "layer 1"), ((0, 0, 0, 9), "layer 4")],
)
def test_a_layer_that_waits_is_named(waiting, named):
    with pytest.raises(AssertionError, match=f"{named} takes .* ms; the calls that it makes"):
        checks.check_parts(rounds_of_parts(waiting))
