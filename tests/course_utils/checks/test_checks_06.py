"""Wrong answers that students write to notebook 06: each fails, with a message about its fault."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from course_utils import benchmark, checks

pytestmark = pytest.mark.authors


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


def if_the_token_is_not_0(start, clock):
    begin = clock()
    return [clock() - begin for token in start() if token]


def yielding(start, clock):
    begin = clock()
    for _ in start():
        yield clock() - begin


def always_the_same_list(start, clock, times=[]):  # noqa: B006
    times += stopwatch(start, clock)
    return times


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (between, "the times between tokens"),
        (lambda start, clock: between(start, clock)[1:], "between tokens, without the first"),
        (from_first_token, "read the clock before the loop"),
        (collected_first, "made before the clock was read"),
        (lambda start, clock: stopwatch(start, clock)[-1:], "one time for each token"),
        (lambda start, clock: stopwatch(start, clock)[1:], "The time of the first token is miss"),
        (lambda start, clock: [0.0, *stopwatch(start, clock)], "the start is no token"),
        (lambda start, clock: [clock() for _ in start()], "Subtract what the clock showed"),
        (lambda start, clock: [-t for t in stopwatch(start, clock)], "not vice versa"),
        (lambda start, clock: start() and [], "lets no token be made"),
        (yielding, "gives a generator, which has not run yet, expected a list"),
        (lambda start, clock: (t for t in stopwatch(start, clock)), "gives a generator for the ti"),
        (started_before_the_clock, "before start\\(\\) is called"),
        (warmed_up, "calls start\\(\\) 2 times"),
        (lambda start, clock: np.array(stopwatch(start, clock)), "gives an ndarray for the times"),
        (lambda start, clock: stopwatch(start, clock) and None, "gives None for the times"),
        (lambda start, clock: [[t] for t in stopwatch(start, clock)], "expected a list of numbers"),
        (lambda start, clock: stopwatch(start, benchmark.timer), "does not read the clock"),
        (lambda start, clock: [1e3 * t for t in stopwatch(start, clock)], "These are milliseconds"),
        (
            lambda start, clock: stopwatch(start, clock)[::-1],
            "is \\[9.0, 7.0, 6.0, 5.0\\], expected",
        ),
        (lambda start, clock: sorted({*stopwatch(start, clock)}), "0, 0 s, is \\[0.0\\], expected"),
        (
            lambda start, clock: [t for t in stopwatch(start, clock) if t],
            "0 s, is \\[\\], expected",
        ),
        (lambda start, clock: [float(round(t)) for t in stopwatch(start, clock)], "expected .0.25"),
        (if_the_token_is_not_0, "is \\[\\], expected \\[5.0, 6.0, 7.0, 9.0\\]\\.$"),
        (always_the_same_list, "is \\[5.0, 6.0, 7.0, 9.0, 0.0"),
        (lambda start, clock: [clock() - 100 for _ in start()], "expected \\[0.0\\]"),
        (lambda start, clock: [clock - 1 for _ in start()], "raised TypeError at `"),
        (lambda start, clock: [clock() for _ in start], "raised TypeError at `"),
        (stopwatch, "without a clock of our own, raised TypeError: .* missing 1 required"),
        (lambda start, clock=None: clock and stopwatch(start, clock), "our own, gives None"),
    ],
)
def test_wrong_stopwatch(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_token_times(answer)


def timed(task, clock):
    begin = clock()
    task()
    return clock() - begin


def measure(tasks, rounds, clock=benchmark.timer):
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


def there_and_back(tasks, rounds, clock):
    for task in tasks.values():
        task()
    seconds = {name: [] for name in tasks}
    for number in range(rounds):
        for name in list(tasks)[:: (-1) ** number]:
            seconds[name].append(timed(tasks[name], clock))
    return seconds


def warmed_up_one_by_one(tasks, rounds, clock):
    seconds = {name: [task() and 0 or timed(task, clock)] for name, task in tasks.items()}
    for _ in range(rounds - 1):
        for name, task in tasks.items():
            seconds[name].append(timed(task, clock))
    return seconds


def only_the_last(tasks, rounds, clock):
    return {name: times[-1:] for name, times in measure(tasks, rounds, clock).items()}


def read_once_a_round(tasks, rounds, clock):
    for task in tasks.values():
        task()
    seconds = {name: [] for name in tasks}
    for _ in range(rounds):
        begin = clock()
        for name, task in tasks.items():
            task()
            seconds[name].append(clock() - begin)
    return seconds


def read_before_the_task(tasks, rounds, clock):
    for task in tasks.values():
        task()
    seconds = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            seconds[name].append(-clock() + clock())
            task()
    return seconds


def with_the_warm_up(tasks, rounds, clock):
    return no_warm_up(tasks, rounds + 1, clock)


def emptied(tasks, rounds, clock):
    found = measure(tasks, rounds, clock)
    tasks.clear()
    return found


def each(change):
    """A measurement of which something was made afterwards, for each task."""
    return lambda tasks, rounds, clock: {
        name: change(times) for name, times in measure(tasks, rounds, clock).items()
    }


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (in_blocks, "in the order A B A A A B B B. After the warm-up the tasks take turns"),
        (there_and_back, "in the order A B A B B A A B. After the warm-up the tasks take turns"),
        (warmed_up_one_by_one, "in the order A A B B A B A B. First each task is run once"),
        (no_warm_up, "counts the first run of each task.*throw that time away"),
        (warm_up_in_every_round, "makes 12 runs .*, expected 8"),
        (clock_read_once, "Read the clock before each run, not only before the first"),
        (read_once_a_round, "Read the clock before each run, not only before each round"),
        (read_before_the_task, "Is the task run between the two readings"),
        (lambda t, r, c: measure(t, r - 1, c), "makes 6 runs .A B A B A B., expected 8"),
        (lambda t, r, c: measure(t, 3, c), "in 1 round .*makes 4 runs .*expected 2"),
        (lambda t, r, c: measure(dict([*t.items()][:2]), r, c), "a dict of .'A', 'B'., expected"),
        (lambda t, r, c: list(measure(t, r, c).values()), "gives a list, expected a dict"),
        (lambda t, r, c: measure(t, r, c) and None, "gives None, expected a dict"),
        (one_list, "one and the same list"),
        (lambda t, r, c: measure(t, r, benchmark.timer), "does not read the clock that was handed"),
        (medians, "gives a float for A, expected a list"),
        (each(np.array), "gives an ndarray for A"),
        (each(lambda times: [min(times)]), "Keep all times, not the best alone"),
        (with_the_warm_up, "The warm-up is among the times, so there is one too many"),
        (only_the_last, "(not of the last|not the best) alone"),
        (each(sorted), "in 2 rounds .*Keep the times in the order of the rounds"),
        (each(lambda times: [-t for t in times]), "Subtract the start from the end"),
        (each(lambda times: [1e3 * t for t in times]), "These are milliseconds"),
        (each(lambda times: [t for t in times if t]), "is \\[\\], expected \\[0.0\\]"),
        (emptied, "changes the dict of tasks"),
        (lambda tasks, rounds, clock: measure(tasks, rounds, clock), "own, raised TypeError"),
        (lambda t, r, c=benchmark.timer: measure(t, r, c), "own, raised TypeError: .*'rounds'"),
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


counted = benchmark.operations


def output(model):
    return model.output_projection.weight


def pairs(model, all_tokens):
    return 2 * model.num_layers * output(model).size(1) * all_tokens


def feed_forward_of_4_d(model, new, total):
    matrices = 12 * model.num_layers * output(model).size(1) ** 2 + output(model).numel()
    return 2 * new * (matrices + pairs(model, total))


def without_parenthesis(model, new, total):
    matrices = counted(model, new, 0)
    return matrices + pairs(model, total)


def with_weights(number, of="modules"):
    """The count, with another number for the weights of each of the model's parts."""

    def operations(model, new, total):
        return 2 * new * (sum(map(number, getattr(model, of)())) + pairs(model, total))

    return operations


def weights_of_linear(part):
    return part.weight.numel() if isinstance(part, nn.Linear) else 0


def parameters_of(*kinds):
    def operations(model, new, total):
        counted = [p for m in model.modules() if isinstance(m, kinds) for p in m.parameters()]
        attention = 2 * model.num_layers * model.output_projection.in_features * total
        return 2 * new * (sum(p.numel() for p in counted) + attention)

    return operations


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (count(factor=1), "That is half"),
        (count(all_parameters=True), "The embeddings are counted"),
        (count(layers=False), "Attention is counted for one layer"),
        (parameters_of(nn.Linear), "The biases are counted"),
        (parameters_of(nn.Linear, nn.LayerNorm), "Biases and norms are counted"),
        (parameters_of(nn.Linear, nn.Embedding), "Embeddings and biases are counted"),
        (count(quadratic=True), "operations.model, 1, 10.*Each query meets all K keys"),
        (count(heads=2), "is 37440, expected 33984.$"),
        (lambda m, n, t: counted(m, t, t), "operations.model, 1, 10.*only the Q new tokens"),
        (lambda m, n, t: counted(m, 1, t), "That is for one token"),
        (lambda m, n, t: counted(m, n, 0), "Attention itself is not counted"),
        (lambda m, n, t: (counted(m, n, 0) + counted(m, n, t)) // 2, "D for the score, and D for"),
        (lambda m, n, t: counted(m, n, n + t), "expected 33984.$"),
        (lambda m, n, t: counted(m, n, max(t, 1)), "operations.model, 1, 0"),
        (lambda m, n, t: counted(m, n, t) - 2 * n * output(m).numel(), "The output projection is"),
        (lambda m, n, t: counted(m, n, 0) + 2 * n * pairs(m, t) * m.num_heads, "heads are counted"),
        (lambda m, n, t: counted(m, n, 0) + 2 * n * pairs(m, t) // m.num_heads, "expected 33984.$"),
        (lambda m, n, t: counted(m, n, 0) + 4 * n * pairs(m, t) // m.num_layers, "num_layers=1"),
        (lambda m, n, t: counted(m, n, t) * output(m).element_size() // 4, "is 40, expected 20"),
        (without_parenthesis, "Is a parenthesis missing"),
        (lambda m, n, t: counted(m, t, n), "Q and K are exchanged"),
        (
            with_weights(lambda part: part.weight.numel() if hasattr(part, "weight") else 0),
            "The weights of all modules are counted, embeddings and norms too",
        ),
        (
            with_weights(lambda part: getattr(part, "out_features", 0)),
            "A matrix has in_features . out_features weights",
        ),
        (with_weights(weights_of_linear, "children"), "`children..` goes one level deep"),
        (feed_forward_of_4_d, "expected 33984.$"),
        (lambda m, n, t: 2 * n * m.d_model, "raised AttributeError at `"),
        (every_parameter, "All parameters are counted"),
        (lambda m, n, t: None, "gives None, expected a number"),
        (lambda m, n, t: torch.tensor(counted(m, n, t)), "gives a Tensor, expected a number"),
        (lambda m, n, t: str(counted(m, n, t)), "gives a str, expected a number"),
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
        (lambda n, s: np.log(s[-1] / s[0]) / (n[-1] / n[0]), "is 0.0921034, expected 2.$"),
        (lambda n, s: float(np.polyfit(np.log(n), np.log(s), 1)[1]), "That is the intercept"),
        (lambda n, s: 2.0, "tokens .. 1. is 2, expected 1.$"),
        (lambda n, s: float(np.log(s[-1] / s[0]) / np.log(n[-1] / n[0])), "first and the last poi"),
        (lambda n, s: round(slope(np.log(n), np.log(s)), 2), "Do not round"),
        (lambda n, s: round(slope(np.log(n), np.log(s)), 4), "Do not round"),
        (lambda n, s: abs(slope(np.log(n), np.log(s))), "expected -"),
        (lambda n, s: slope(np.log(sorted(n)), np.log(sorted(s))), "expected -"),
        (lambda n, s: slope(np.log10(n), np.log(s)), "is 4.60517, expected 2.$"),
        (lambda n, s: slope(np.log1p(n), np.log(s)), "is 2.037636, expected 2.$"),
        (lambda n, s: float(np.corrcoef(np.log(n), np.log(s))[0, 1]), "is 1, expected 2.$"),
        (lambda n, s: float(np.log(n) @ np.log(s) / (np.log(n) @ np.log(n))), "is 1.139633, ex"),
        (lambda n, s: float(np.median(np.diff(np.log(s)) / np.diff(np.log(n)))), "expected -0."),
        (lambda n, s: slope(np.log(n), np.log(s, out=s)), "changes an"),
        (lambda n, s: slope(np.log(n), np.log(1.0 * s)), "as a list, raised TypeError at `"),
        (lambda n, s: np.polyfit(np.log(n), np.log(s), 1), "expected one number"),
        (lambda n, s: None, "gives None, expected one number"),
    ],
)
def test_wrong_exponent(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_exponent(answer)


def test_right_answers_pass():
    checks.check_token_times(benchmark_stopwatch)
    checks.check_measure(measure)
    checks.check_operations(count())
    checks.check_exponent(lambda n, s: slope(np.log(n), np.log(s)))


def benchmark_stopwatch(start, clock=benchmark.timer):
    return stopwatch(start, clock)


def by_hand(start, clock=benchmark.timer):
    begin, tokens, times = clock(), iter(start()), []
    clock()
    nothing = object()
    while next(tokens, nothing) is not nothing:
        times.append(clock() - begin)
    return times


def summed_up(start, clock=benchmark.timer):
    last, steps = clock(), []
    for _ in start():
        now = clock()
        steps.append(now - last)
        last = now
    return np.cumsum(steps).tolist()


def from_marks(start, clock=benchmark.timer):
    marks = [clock()]
    marks += (clock() for _ in start())
    return list(np.array(marks[1:]) - marks[0])


@pytest.mark.parametrize("answer", [by_hand, summed_up, from_marks])
def test_right_stopwatches(answer):
    checks.check_token_times(answer)


def first_round_dropped(tasks, rounds, clock=benchmark.timer):
    return {name: times[1:] for name, times in no_warm_up(tasks, rounds + 1, clock).items()}


def the_other_way_round(tasks, rounds, clock=benchmark.timer):
    return measure(dict(reversed(tasks.items())), rounds, clock)


def from_one_reading_to_the_next(tasks, rounds, clock=benchmark.timer):
    seconds = defaultdict(list)
    for task in tasks.values():
        task()
    last = clock()
    for name in list(tasks) * rounds:
        tasks[name]()
        now = clock()
        seconds[name].append(now - last)
        last = now
    return seconds


def in_a_table(tasks, rounds, clock=benchmark.timer):
    _ = [task() for task in tasks.values()]
    table = [[np.float64(timed(task, clock)) for task in tasks.values()] for _ in range(rounds)]
    return {name: [row[place] for row in table] for place, name in enumerate(tasks)}


@pytest.mark.parametrize(
    "answer",
    [first_round_dropped, the_other_way_round, from_one_reading_to_the_next, in_a_table],
)
def test_right_measurements(answer):
    checks.check_measure(answer)


def by_names(model, new, total):
    parameters = dict(model.named_parameters()).items()
    matrices = (p.numel() for name, p in parameters if p.dim() == 2 and "embedding" not in name)
    return 2 * new * (sum(matrices) + pairs(model, total))


def matrix_by_matrix(model, new, total):
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    attended = sum(2 * 2 * new * total * layer.attention.W_q.out_features for layer in model.layers)
    return attended + sum(2 * new * m.in_features * m.out_features for m in linears)


def head_by_head(model, new, total):
    scores = mixes = 2 * new * total * model.d_head
    return counted(model, new, 0) + model.num_layers * model.num_heads * (scores + mixes)


@pytest.mark.parametrize(
    "answer",
    [
        by_names,
        matrix_by_matrix,
        head_by_head,
        lambda m, n, t: float(counted(m, n, t)),
        lambda m, n, t: np.int64(counted(m, n, t)),
    ],
)
def test_right_counts(answer):
    checks.check_operations(answer)


def in_closed_form(tokens, seconds):
    x, y = [math.log(n) for n in tokens], [math.log(s) for s in seconds]
    x = [one - sum(x) / len(x) for one in x]
    return sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)


def in_float32(tokens, seconds):
    x, y = (torch.tensor(one, dtype=torch.float32).log() for one in (tokens, seconds))
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / (x * x).sum())


def by_least_squares(tokens, seconds):
    matrix = np.stack([np.log(tokens), np.ones(len(tokens))], axis=1)
    return np.linalg.lstsq(matrix, np.log(seconds), rcond=None)[0][0]


def by_a_polynomial(tokens, seconds):
    return np.polynomial.Polynomial.fit(np.log2(tokens), np.log2(seconds), 1).convert().coef[1]


@pytest.mark.parametrize("answer", [in_closed_form, in_float32, by_least_squares, by_a_polynomial])
def test_right_exponents(answer):
    checks.check_exponent(answer)


def test_the_interval_of_a_ratio_covers_what_was_put_in():
    rng = np.random.default_rng(1)
    slow, fast = 3 * rng.uniform(0.9, 1.1, 50), rng.uniform(0.9, 1.1, 50)
    middle, low, high = benchmark.ratio_interval(slow, fast)
    assert low < 3 < high
    assert low <= middle <= high
    assert high - low < 0.5
