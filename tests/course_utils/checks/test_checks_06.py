"""Wrong answers that students write to notebook 06: each fails, with a message about its fault."""

import numpy as np
import pytest
from torch import nn

from course_utils import benchmark, checks


def stopwatch(start, clock):
    begin = clock()
    return [clock() - begin for _ in start()]


def between(start, clock):
    times, last = [], clock()
    for _ in start():
        times.append(clock() - last)
        last = clock()
    return times


def from_first_token(start, clock):
    times = []
    for _ in start():
        times.append(clock())
    return [time - times[0] for time in times]


def collected_first(start, clock):
    begin = clock()
    return [clock() - begin for _ in list(start())]


def started_before_the_clock(start, clock):
    tokens = start()
    begin = clock()
    return [clock() - begin for _ in tokens]


def warmed_up(start, clock):
    list(start())
    return stopwatch(start, clock)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (between, "the times between tokens"),
        (from_first_token, "read the clock before the loop"),
        (collected_first, "made before the clock was read"),
        (lambda start, clock: stopwatch(start, clock)[-1:], "one time for each token"),
        (lambda start, clock: [clock() for _ in start()], "Subtract what the clock showed"),
        (lambda start, clock: start() and [], "No token was made"),
        (started_before_the_clock, "before start\\(\\) is called"),
        (warmed_up, "start\\(\\) was called 2 times"),
        (lambda start, clock: np.array(stopwatch(start, clock)), "gave a ndarray, expected a list"),
        (lambda start, clock: stopwatch(start, clock) and None, "gave a NoneType"),
        (lambda start, clock: stopwatch(start, benchmark.timer), "by the clock that was handed in"),
        (lambda start, clock: [1e3 * t for t in stopwatch(start, clock)], "found \\[5000.0"),
    ],
)
def test_wrong_stopwatch(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_token_times(answer)


def timed(task, clock):
    begin = clock()
    task()
    return clock() - begin


def measure(tasks, rounds, clock):
    for task in tasks.values():
        task()
    seconds = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            seconds[name].append(timed(task, clock))
    return seconds


def in_blocks(tasks, rounds, clock):
    for task in tasks.values():
        task()
    return {name: [timed(task, clock) for _ in range(rounds)] for name, task in tasks.items()}


def no_warm_up(tasks, rounds, clock):
    seconds = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            seconds[name].append(timed(task, clock))
    return seconds


def warm_up_in_every_round(tasks, rounds, clock):
    seconds = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            task()
            seconds[name].append(timed(task, clock))
    return seconds


def clock_read_once(tasks, rounds, clock):
    for task in tasks.values():
        task()
    seconds, begin = {name: [] for name in tasks}, clock()
    for _ in range(rounds):
        for name, task in tasks.items():
            task()
            seconds[name].append(clock() - begin)
    return seconds


def one_list(tasks, rounds, clock):
    seconds = dict.fromkeys(tasks, [])
    for name, times in measure(tasks, rounds, clock).items():
        seconds[name].extend(times)
    return seconds


def medians(tasks, rounds, clock):
    return {k: float(np.median(v)) for k, v in measure(tasks, rounds, clock).items()}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (in_blocks, "take turns"),
        (no_warm_up, "throw that time away"),
        (warm_up_in_every_round, "made 12 runs, expected 8"),
        (clock_read_once, "A takes 2 s and B 3 s"),
        (lambda t, r, c: measure(t, r - 1, c), "made 6 runs, expected 8"),
        (lambda t, r, c: list(measure(t, r, c).values()), "returns a dict"),
        (one_list, "one and the same list"),
        (lambda t, r, c: measure(t, r, benchmark.timer), "Read the clock that was handed in"),
        (medians, "The seconds of A are a float, expected a list"),
        (lambda t, r, c: {k: [min(v)] for k, v in measure(t, r, c).items()}, "three times each"),
    ],
)
def test_wrong_measurement(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_measure(answer)


def count(all_parameters=False, factor=2, layers=True, quadratic=False, heads=1):
    def operations(model, new, total):
        kinds = (nn.Linear, nn.Embedding) if all_parameters else nn.Linear
        weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, kinds))
        d_model = model.output_projection.in_features
        depth = model.num_layers if layers else 1
        keys = new if quadratic else total
        return factor * new * (weights + 2 * depth * d_model * keys * heads)

    return operations


def every_parameter(model, new, total):
    attention = 2 * model.num_layers * model.output_projection.in_features * total
    return 2 * new * (sum(p.numel() for p in model.parameters()) + attention)


def parameters_of(*kinds):
    def operations(model, new, total):
        counted = [p for m in model.modules() if isinstance(m, kinds) for p in m.parameters()]
        attention = 2 * model.num_layers * model.output_projection.in_features * total
        return 2 * new * (sum(p.numel() for p in counted) + attention)

    return operations


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (count(factor=1), "That is half"),
        (count(all_parameters=True), "The embeddings are counted"),
        (count(layers=False), "Attention is counted for one layer"),
        (parameters_of(nn.Linear), "The biases are counted"),
        (parameters_of(nn.Linear, nn.LayerNorm), "Biases and norms are counted"),
        (parameters_of(nn.Linear, nn.Embedding), "Embeddings and biases are counted"),
        (count(quadratic=True), "1 new tokens on 9 cached ones"),
        (count(heads=2), "PyTorch counted"),
        (lambda m, n, t: benchmark.operations(m, t, t), "1 new tokens on 9 cached ones"),
        (every_parameter, "All parameters are counted"),
        (lambda m, n, t: None, "gave None, expected a number"),
    ],
)
def test_wrong_count(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_operations(answer)


def slope(x, y):
    return float(np.polyfit(x, y, 1)[0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda n, s: slope(n, s), "Take both logarithms"),
        (lambda n, s: slope(n, np.log(s)), "logarithm of the tokens too"),
        (lambda n, s: slope(np.log(s), np.log(n)), "exchanged"),
        (lambda n, s: slope(np.log(n), s), "logarithm of the times too"),
        (lambda n, s: np.log(s[-1] / s[0]) / (n[-1] / n[0]), "the exponent is 2"),
        (lambda n, s: float(np.polyfit(np.log(n), np.log(s), 1)[1]), "the exponent is 2"),
        (lambda n, s: 2.0, "the exponent is 1; found 2.000"),
        (lambda n, s: float(np.log(s[-1] / s[0]) / np.log(n[-1] / n[0])), "through all of them"),
        (lambda n, s: round(slope(np.log(n), np.log(s)), 2), "do not round"),
        (lambda n, s: np.polyfit(np.log(n), np.log(s), 1), "expected one number"),
        (lambda n, s: None, "gave None, expected one number"),
    ],
)
def test_wrong_exponent(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_exponent(answer)


def test_right_answers_pass():
    checks.check_token_times(stopwatch)
    checks.check_measure(measure)
    checks.check_operations(count())
    checks.check_exponent(lambda n, s: slope(np.log(n), np.log(s)))


def test_the_interval_of_a_ratio_covers_what_was_put_in():
    rng = np.random.default_rng(1)
    slow, fast = 3 * rng.uniform(0.9, 1.1, 50), rng.uniform(0.9, 1.1, 50)
    middle, low, high = benchmark.ratio_interval(slow, fast)
    assert low < 3 < high
    assert low <= middle <= high
    assert high - low < 0.5
