"""What the check cell of a fair measurement calls (notebook 06, exercise 2)."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from .common import verdict
from .judged import judge
from .n06_stop_watch import SECONDS, START, Clock, all_seconds, asked, kind, refuse_another_clock


@dataclass(frozen=True)
class _Race:
    """How long each run of each task takes; the first run, of the warm-up, included."""

    seconds: dict[str, tuple[float, ...]]
    begins: float = START

    @property
    def rounds(self) -> int:
        return len(next(iter(self.seconds.values()))) - 1

    def __str__(self) -> str:
        takes = "; ".join(
            f"{name} takes {first:g} s the first time, then {', '.join(f'{s:g}' for s in later)} s"
            for name, (first, *later) in self.seconds.items()
        )
        return f"measure, in {self.rounds} round{'s' * (self.rounds > 1)} ({takes}),"

    def times(self) -> dict[str, list[float]]:
        return {name: list(seconds[1:]) for name, seconds in self.seconds.items()}


@st.composite
def _races(draw: st.DrawFn) -> _Race:
    names = draw(st.permutations("ABC"))[: draw(st.integers(1, 3))]
    runs = draw(st.integers(1, 4)) + 1
    one = st.lists(st.sampled_from(SECONDS), min_size=runs, max_size=runs)
    return _Race({name: tuple(draw(one)) for name in names}, draw(st.sampled_from((START, 0.0))))


def _raced(measure: Callable[..., dict[str, list[float]]]) -> Callable[[_Race], dict]:
    def answer(case: _Race) -> dict[str, list[float]]:
        clock, log = Clock(case.begins), []

        def task(name: str) -> Callable[[], str]:
            def run() -> str:
                seconds = case.seconds[name]
                clock.now += seconds[min(log.count(name), len(seconds) - 1)]
                log.append(name)
                return "done"

            return run

        tasks = {name: task(name) for name in case.seconds}
        given = dict(tasks)
        found = asked(measure, tasks, case.rounds, clock)
        if tasks != given:
            raise AssertionError("changes the dict of tasks")
        if not isinstance(found, dict) or set(found) != set(tasks):
            names = f"a dict of {list(found)}" if isinstance(found, dict) else kind(found)
            raise AssertionError(f"gives {names}, expected a dict with the names {list(tasks)}")
        for name, seconds in found.items():
            all_seconds(seconds, f"for {name}")
        if len(log) == len(tasks) * case.rounds and found == _without_warm_up(case):
            raise AssertionError(
                "counts the first run of each task, which is slow. Run each task once before the "
                "rounds, and throw that time away"
            )
        _in_turns(log, len(tasks), case.rounds)
        refuse_another_clock(clock)
        if len({id(seconds) for seconds in found.values()}) < len(found):
            raise AssertionError(
                "has one and the same list for several names (dict.fromkeys does that). Make one "
                "for each"
            )
        return found

    return answer


def _in_turns(log: list[str], tasks: int, rounds: int) -> None:
    """Raise AssertionError unless the runs are a warm-up of each task, and then turns."""
    order = " ".join(log)
    expected = tasks * (1 + rounds)
    if len(log) != expected:
        raise AssertionError(
            f"makes {len(log)} runs ({order}), expected {expected}: one warm-up of each task, and "
            f"then {rounds} round{'s' * (rounds > 1)}"
        )
    if len(set(log[:tasks])) < tasks:
        raise AssertionError(f"makes its runs in the order {order}. First each task is run once")
    turn = log[tasks : 2 * tasks]
    if len(set(turn)) < tasks or log[tasks:] != turn * rounds:
        raise AssertionError(
            f"makes its runs in the order {order}. After the warm-up the tasks take turns: "
            f"{' '.join(sorted(set(log)) * rounds)}"
        )


def _without_warm_up(case: _Race) -> dict[str, list[float]]:
    return {name: list(seconds[:-1]) for name, seconds in case.seconds.items()}


def _totals(case: _Race) -> dict[str, list[float]]:
    """The clock is read before the first run only, and after each."""
    now, found = 0.0, {name: [] for name in case.seconds}
    for one_round in range(1, case.rounds + 1):
        for name, seconds in case.seconds.items():
            now += seconds[one_round]
            found[name].append(now)
    return found


def _of_rounds(case: _Race) -> dict[str, list[float]]:
    """The clock is read before each round only, and after each run."""
    found = {name: [] for name in case.seconds}
    for one_round in range(1, case.rounds + 1):
        now = 0.0
        for name, seconds in case.seconds.items():
            now += seconds[one_round]
            found[name].append(now)
    return found


def _each(change: Callable[[list[float]], list[float]]) -> Callable[[_Race], dict]:
    """A usual mistake, made in the times of each task."""
    return lambda case: {name: change(list(one[1:])) for name, one in case.seconds.items()}


MEASUREMENTS = [
    (_totals, "Read the clock before each run, not only before the first."),
    (_of_rounds, "Read the clock before each run, not only before each round."),
    (
        lambda case: {name: list(one) for name, one in case.seconds.items()},
        "The warm-up is among the times, so there is one too many: throw that time away.",
    ),
    (_each(lambda seconds: seconds[-1:]), "Keep the times of all rounds, not of the last alone."),
    (_each(lambda seconds: [min(seconds)]), "Keep all times, not the best alone."),
    (_each(sorted), "Keep the times in the order of the rounds."),
    (_each(lambda seconds: [-s for s in seconds]), "Subtract the start from the end."),
    (_each(lambda seconds: [1e3 * s for s in seconds]), "These are milliseconds; wanted: seconds."),
    (_each(lambda seconds: [0.0] * len(seconds)), "Is the task run between the two readings?"),
    (
        _without_warm_up,
        "The first run of each task, which is slow, is among the times: throw that time away.",
    ),
]


@verdict
def check_measure(measure: Callable[..., dict[str, list[float]]]) -> str:
    """Notebook 06, exercise 2. Returns a verdict; raises AssertionError if times are unfair."""
    first = _Race({"A": (50.0, 2.0, 2.0, 2.0), "B": (80.0, 3.0, 3.0, 3.0)})
    judge(_raced(measure), _Race.times, _races(), MEASUREMENTS, [first])
    try:
        found = asked(measure, {"A": int}, rounds=2)
        if not isinstance(found, dict) or len(found.get("A", [])) != 2 or min(found["A"]) < 0:
            raise AssertionError(f"gives {found}, expected two times of A")
    except AssertionError as error:
        raise AssertionError(
            f"measure(tasks, rounds=2), without a clock of our own, {error}."
        ) from None
    return "measure is right: a warm-up for each, then turns, and every time is kept."
