"""What the checks of FlashAttention compare with: all scores at once (chapter 08)."""

import math

from torch import Tensor

from ....attention import softmax

EXACT = {"atol": 1e-10, "rtol": 1e-10}
HIDDEN = -math.inf


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp with all scores at once; a row that sees no key: 0 and -inf."""
    scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, HIDDEN)
    return softmax(scores) @ v, scores.logsumexp(dim=-1)


def several(found: object, names: tuple[str, ...]) -> tuple:
    """The results as a tuple, or AssertionError unless there are as many as names."""
    if not isinstance(found, tuple | list) or len(found) != len(names):
        raise AssertionError(f"Expected {len(names)} results: {', '.join(names)}.")
    return tuple(found)
