"""How often each token is drawn and how often it should be; whether draws are repeatable."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import generation as right
from .draws import unlikely

CLEAR = 1e-3  # how far p is from the sums with which a word more would be needed


@dataclass(frozen=True)
class Chances:
    """The probability of each token (V,)."""

    probabilities: Tensor

    def __repr__(self) -> str:
        return _rounded(self.probabilities)


@dataclass(frozen=True, eq=False)
class Shares:
    """How often each token was drawn (V,); equal to `Chances` that may well give such counts."""

    counts: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chances) and not unlikely(self.counts, other.probabilities)

    def __repr__(self) -> str:
        draws = int(self.counts.sum())
        return f"drawn with shares {_rounded(self.counts / max(draws, 1))} in {draws} draws"


def _rounded(shares: Tensor) -> str:
    return f"[{', '.join(f'{share:.2f}' for share in shares.tolist())}]"


def chances(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The probabilities (B, V) with which `next_token` draws from such logits."""
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.size(-1)).double()
    logits = logits.double() / temperature
    logits = logits if top_k is None else right.keep_top_k(logits, top_k)
    logits = logits if top_p is None else right.keep_top_p(logits, top_p)
    return torch.softmax(logits, -1)


def clear(logits: Tensor, p: float) -> bool:
    """Whether p is far enough from each sum of the likeliest words' probabilities."""
    shares = torch.softmax(logits.double(), -1).sort(descending=True).values
    likelier = (shares.cumsum(-1) - shares)[logits.sort(descending=True).values > -math.inf]
    return bool(((likelier - p).abs() > CLEAR).all())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def repeatable(draw: Callable[[torch.Generator | None], Tensor], name: str) -> None:
    """Raise AssertionError unless draws follow the generator, and without one PyTorch's own state.

    `draw` returns enough drawn tokens that two draws are never the same by chance.
    """
    first, again, other = (draw(seeded(seed)) for seed in (7, 7, 8))
    if not torch.equal(first, again):
        raise AssertionError(
            f"{name}: two generators with the same seed gave other tokens. Is the generator "
            "handed on to what draws?"
        )
    if torch.equal(first, other):
        raise AssertionError(
            f"{name}: generators with other seeds gave the same tokens. Draw with the generator "
            "that is handed in, and set no seed of your own."
        )
    own, before = seeded(7), torch.random.get_rng_state()
    if torch.equal(draw(own), draw(own)):
        raise AssertionError(
            f"{name}: two draws in a row with one generator gave the same tokens. Use it as it "
            "is: a new one with its seed begins again each time."
        )
    if not torch.equal(before, torch.random.get_rng_state()):
        raise AssertionError(
            f"{name}: PyTorch's own random numbers were used, or seeded, although a generator was "
            "handed in. Draw with the generator only."
        )
    torch.manual_seed(7)
    first, second = draw(None), draw(None)
    torch.manual_seed(7)
    again = draw(None)
    if torch.equal(first, second):
        raise AssertionError(
            f"{name}: without a generator, two draws in a row gave the same tokens. Set no seed: "
            "PyTorch's own random numbers go on where they were."
        )
    if not torch.equal(first, again):
        raise AssertionError(
            f"{name}: without a generator, torch.manual_seed did not make a draw repeatable. Hand "
            "on generator=None as it is: PyTorch then uses its own random numbers."
        )
