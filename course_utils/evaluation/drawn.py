"""Drawing examples with `hypothesis`, and making small the one that fails.

Draws are repeatable: they depend on the seed and on nothing else. (Hypothesis also likes to draw
constants that it finds in the modules that happen to be loaded; `Repeatable` leaves those out.)
"""

from collections.abc import Callable
from random import Random
from typing import TypeVar

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, NoSuchExample
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

MOST_TRIES = 150

Example = TypeVar("Example")


class Repeatable(HypothesisProvider):
    def _maybe_draw_constant(self, *args: object, **options: object) -> None:
        return None


AVAILABLE_PROVIDERS["repeatable"] = Repeatable


def smallest(
    examples: st.SearchStrategy[Example], fails: Callable[[Example], bool], number: int, seed: int
) -> Example | None:
    """The smallest example that fails, found among `number` drawn ones, or None.

    What is found stops getting smaller after `MOST_TRIES`.
    """
    tries, failed = 0, []

    def failing(example: Example) -> bool:
        nonlocal tries
        tries += 1
        if tries > number + MOST_TRIES or not fails(example):
            return False
        failed.append(example)
        return True

    chosen = settings(
        max_examples=number,
        database=None,
        deadline=None,
        backend="repeatable",
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        return find(examples, failing, settings=chosen, random=Random(seed))
    except NoSuchExample:
        return None
    except Flaky:
        # Its last call, with the smallest one, came after the most tries, or went otherwise.
        return failed[-1]
