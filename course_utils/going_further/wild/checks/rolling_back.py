"""What the check cell of the rollback calls (chapter 13, exercise 1)."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

from hypothesis import strategies as st
from transformers import Cache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ....checks.common import verdict
from ....checks.judged import judge
from .. import window as built
from .stories import Step, answering, keys, refuse_a_stub, tried

WINDOW = 4
RollBack = Callable[[SimpleNamespace, int], object]


@dataclass(frozen=True)
class Story:
    """What happens to a cache: a positive step feeds so many tokens, another takes some back."""

    window: bool
    steps: tuple[int, ...]
    num_layers: int = 1

    def __str__(self) -> str:
        layer = f"a window of {WINDOW}" if self.window else "everything in it"
        said, length = [], 0
        for step in self.steps:
            length = max(length + step, 0)
            said.append(f"{step} fed" if step > 0 else f"roll_back(kept, {length})")
        layers = f" in each of {self.num_layers} layers" * (self.num_layers > 1)
        return f"With {layer}{layers}, {', then '.join(said)}: the outcome"


@st.composite
def _stories(draw: st.DrawFn) -> Story:
    steps = draw(st.lists(st.integers(-3, 5), min_size=1, max_size=5))
    window, first = draw(st.booleans()), draw(st.integers(1, 6))
    return Story(window, (first, *steps), draw(st.sampled_from((1, 1, 2))))


def playing(roll_back: RollBack) -> Callable[[Story], dict[str, object]]:
    """The answer to a story: after each step, what the cache and the adapter know."""

    def play(story: Story) -> Iterator[Step]:
        made = (lambda: DynamicSlidingWindowLayer(WINDOW)) if story.window else DynamicLayer
        layers = [made() for _ in range(story.num_layers)]
        kept = SimpleNamespace(past=Cache(layers=layers), length=0)
        for number, step in enumerate(story.steps, 1):
            if step > 0:
                new = keys(kept.length, step)
                for i in range(story.num_layers):
                    kept.past.update(new + i, -new - i, i)
                kept.length += step
            else:
                length = max(kept.length + step, 0)
                words = _refusal(kept.past, length - kept.length) if story.window else ""
                yield f"step {number}", tried(roll_back, kept, length, words=words)
            yield f"step {number}, kept.length", kept.length
            for i, layer in enumerate(kept.past.layers):
                of = f" of layer {i}" * (story.num_layers > 1)
                yield f"step {number}, what the cache has seen{of}", layer.get_seq_length()
                yield f"step {number}, its keys{of}", layer.keys.clone()
                yield f"step {number}, its values{of}", layer.values.clone()

    return answering(play)


def _refusal(past: Cache, count: int) -> str:
    """What the library says if it cannot take so many tokens back, or nothing."""
    try:
        copy.deepcopy(past).crop(count)
    except RuntimeError as error:
        return str(error)
    return ""


def _uncounted(kept: SimpleNamespace, length: int) -> None:
    before = kept.length
    built.roll_back(kept, length)
    kept.length = before


def _one_short(kept: SimpleNamespace, length: int) -> None:
    built.roll_back(kept, min(length + 1, kept.length))
    kept.length = length


def _one_more(kept: SimpleNamespace, length: int) -> None:
    built.roll_back(kept, max(length - 1, 0))
    kept.length = length


def _counted_only(kept: SimpleNamespace, length: int) -> None:
    kept.length = length


def _asking_for_nothing(kept: SimpleNamespace, length: int) -> None:
    try:
        kept.past.crop(length - kept.length)
    except RuntimeError as error:
        raise NotImplementedError(str(error)) from None
    kept.length = length


WRONG = [
    (
        playing(_asking_for_nothing),
        "Where nothing is to be taken back, there is nothing to do: `crop(0)` may be refused.",
    ),
    (playing(_uncounted), "The adapter's own count, kept.length, has to follow."),
    (playing(_one_short), "`crop` keeps one token too many: -1 takes one away."),
    (playing(_one_more), "`crop` takes one token too many: -1 takes one away."),
    (playing(_counted_only), "Only the count has changed: the keys are still there."),
]
FIRST = [
    Story(False, (5, -2)),
    Story(False, (5, 0, 2)),
    Story(False, (5, -2, 3, -1)),
    Story(True, (3, -1, 1)),
    Story(True, (6, -1)),
    Story(True, (6, 0)),
    Story(False, (5, -2), 2),
]


def _fed(count: int) -> SimpleNamespace:
    past = Cache(layers=[DynamicLayer()])
    past.update(keys(0, count), keys(0, count), 0)
    return SimpleNamespace(past=past, length=count)


@verdict
def check_roll_back(roll_back: RollBack) -> str:
    """Chapter 13, exercise 1. Returns a verdict; raises AssertionError on another function."""
    refuse_a_stub(roll_back, _fed(5), 3)
    judge(
        playing(roll_back),
        playing(built.roll_back),
        _stories(),
        WRONG,
        first=FIRST,
        number=100,
        advice="`crop(-n)` takes n tokens away; a RuntimeError of the library says that it cannot.",
    )
    return "roll_back is right: the last tokens are gone, or it says that the cache cannot do it."
