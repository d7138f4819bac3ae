"""What the checks of a rollback share: a cache that is fed and rolled back in turn (chapter 13)."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ....checks.common import is_stub, raised

NOT_OFFERED, DONE = "refused", "taken back"
Step = tuple[str, object]


def keys(start: int, length: int) -> Tensor:
    """Keys (1, 1, length, 2) that say at which position they were."""
    positions = torch.arange(start, start + length, dtype=torch.float64)
    return torch.stack([positions, -positions], dim=-1)[None, None]


def answering(play: Callable[[Any], Iterator[Step]]) -> Callable[[Any], dict[str, object]]:
    """The answer to a story: what there is after each step. An error becomes a sentence."""

    def answer(story: object) -> dict[str, object]:
        try:
            return dict(play(story))
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(raised(error)) from error

    return answer


def tried(take_back: Callable[..., object], *arguments: object, words: str = "") -> str:
    """Whether it was done, or refused by NotImplementedError with a reason, and these words."""
    try:
        take_back(*arguments)
    except NotImplementedError as error:
        said = f"{error} {error.__cause__ or ''}"
        if not said.strip():
            raise AssertionError("raises NotImplementedError without a reason") from None
        if words not in said:
            raise AssertionError(
                f"raises NotImplementedError with {str(error)!r}, without the words of the "
                "library's RuntimeError"
            ) from None
        return NOT_OFFERED
    return DONE


def refuse_a_stub(take_back: Callable[..., object], *arguments: object) -> None:
    """Raise the error of an exercise that is not begun; any other is judged later."""
    try:
        take_back(*arguments)
    except NotImplementedError as error:
        if is_stub(error):
            raise
    except Exception:
        return
