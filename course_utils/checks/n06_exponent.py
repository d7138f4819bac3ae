"""What the check cell of the exponent calls (notebook 06, exercise 4)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from hypothesis import strategies as st

from .common import verdict
from .judged import judge
from .n06_stop_watch import asked

TOKENS = (10, 50, 100, 500, 1000, 20, 200, 1, 2, 5000)
SAME_SLOPE = 2e-5


class _Slope:
    """A slope, the same as another one but for the rounding of float32."""

    def __init__(self, value: float):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Slope) and math.isclose(
            self.value, other.value, rel_tol=SAME_SLOPE, abs_tol=SAME_SLOPE
        )

    def __repr__(self) -> str:
        return f"{self.value:.7g}"


@dataclass(frozen=True)
class _Points:
    """Times of so many tokens, and the kind of sequence that both come in."""

    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    law: str = ""
    holds: Callable[[Sequence[float]], Sequence[float]] = np.array

    def __str__(self) -> str:
        seconds = ", ".join(f"{s:.4g}" for s in self.seconds)
        kind_of = "" if self.holds is np.array else f", both as a {self.holds.__name__},"
        law = self.law and f" ({self.law})"
        return f"exponent({list(self.tokens)}, [{seconds}]){kind_of}{law}"


def _power_law(power: float, factor: float) -> _Points:
    tokens = (10, 50, 100, 500, 1000)
    seconds = tuple(factor * n**power for n in tokens)
    return _Points(tokens, seconds, f"seconds = {factor:g} * tokens ** {power:g}")


@st.composite
def _points(draw: st.DrawFn) -> _Points:
    tokens = draw(st.lists(st.sampled_from(TOKENS), min_size=2, max_size=7, unique=True))
    numbers = draw(st.lists(st.integers(1, 99), min_size=len(tokens), max_size=len(tokens)))
    factor = draw(st.sampled_from((1.0, 1e-3, 1e3)))
    seconds = tuple(factor * (number + (place == 0)) for place, number in enumerate(numbers))
    return _Points(tuple(tokens), seconds, holds=draw(st.sampled_from((np.array, np.array, list))))


def _slope_of(exponent: Callable[..., float]) -> Callable[[_Points], _Slope]:
    def answer(case: _Points) -> _Slope:
        given = case.holds(case.tokens), case.holds(case.seconds)
        found = asked(exponent, *given)
        if tuple(map(tuple, given)) != (case.tokens, case.seconds):
            raise AssertionError("changes an array that came in")
        if isinstance(found, bool) or not isinstance(found, Real):
            raise AssertionError(f"gives {found!r}, expected one number: the slope")
        return _Slope(float(found))

    return answer


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the best straight line; NaN for the slope of a vertical one."""
    across = x - x.mean()
    slope = float((across * y).sum() / ((across**2).sum() or math.nan))
    return slope, float(y.mean() - slope * x.mean())


def _fitted(x: Callable, y: Callable, number: int = 0) -> Callable[[_Points], _Slope]:
    """Slope (or intercept, number 1) of the best line through some function of the points."""

    def slope(case: _Points) -> _Slope:
        tokens, seconds = np.array(case.tokens, float), np.array(case.seconds)
        return _Slope(_line(x(tokens, seconds), y(tokens, seconds))[number])

    return slope


def _between_ends(case: _Points) -> _Slope:
    (first, *_, last), (begin, *_, end) = case.tokens, case.seconds
    return _Slope(math.log(end / begin) / math.log(last / first))


def _rounded(digits: int) -> Callable[[_Points], _Slope]:
    return lambda case: _Slope(round(_best(case).value, digits))


def _tokens(tokens: np.ndarray, _: np.ndarray) -> np.ndarray:
    return tokens


def _seconds(_: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    return seconds


def _log_tokens(tokens: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.log(tokens)


def _log_seconds(_: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    return np.log(seconds)


_best = _fitted(_log_tokens, _log_seconds)
SLOPES = [
    (
        _fitted(_tokens, _seconds),
        "That is the slope in seconds per token. Take both logarithms.",
    ),
    (
        _fitted(_tokens, _log_seconds),
        "Take the logarithm of the tokens too, not only of the times.",
    ),
    (
        _fitted(_log_tokens, _seconds),
        "Take the logarithm of the times too, not only of the tokens.",
    ),
    (
        _fitted(_log_seconds, _log_tokens),
        "Tokens and seconds are exchanged: log seconds against log tokens.",
    ),
    (
        _fitted(_log_tokens, _log_seconds, number=1),
        "That is the intercept: `np.polyfit` returns the slope first.",
    ),
    (_between_ends, "That is the line through the first and the last point. Fit all of them."),
    *((_rounded(digits), "Do not round.") for digits in range(5)),
]


@verdict
def check_exponent(exponent: Callable[..., float]) -> str:
    """Notebook 06, exercise 4. Returns a verdict; raises AssertionError on a wrong slope."""
    laws = [_power_law(*law) for law in ((2.0, 0.01), (1.0, 3.0), (1.5, 1e-4), (0.5, 2.0))]
    judge(_slope_of(exponent), _best, _points(), SLOPES, laws)
    return "exponent is right on four power laws, and on points beside a line."
