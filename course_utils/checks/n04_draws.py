"""How a loop with a cache draws: as often as it should, and again from the same seed (04)."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from ..attention import softmax
from ..generation import keep_top_k, keep_top_p
from .common import raised, tiny_model
from .draws import unlikely

Loop = Callable[..., Iterator[Tensor]]

SAMPLINGS = (
    {"temperature": 1.0},
    {"temperature": 0.6, "top_k": 4},
    {"temperature": 1.5, "top_p": 0.8},
)
ROWS = 500


@lru_cache
def model_of(vocab_size: int = 20, number: int = 0) -> nn.Module:
    """The same model each time; another `number`, another object."""
    return tiny_model(vocab_size)


def told_by(loop: Loop, *given: object, **options: object) -> list[Tensor]:
    try:
        return [*loop(*given, **options)]
    except Exception as error:
        raise AssertionError(f"decode_loop {raised(error)}.") from error


@torch.no_grad()
def draws_as_it_should(loop: Loop) -> None:
    """Raise AssertionError unless tokens come as often as they should."""
    model = model_of(6)
    prompt = torch.tensor([[3, 1, 4]]).expand(ROWS, -1)
    for sampling, use_cache in zip(SAMPLINGS, (True, False, True), strict=True):
        torch.manual_seed(0)
        tokens = told_by(loop, model, prompt, 2, use_cache, **sampling)
        expected = _probabilities(model, prompt[:1], sampling)
        counts = torch.bincount(6 * tokens[0] + tokens[1], minlength=36)
        if unlikely(counts, expected):
            at = (counts - ROWS * expected).abs().argmax().item()
            given = ", ".join(f"{name}={value}" for name, value in sampling.items())
            raise AssertionError(
                f"With {given} and use_cache={use_cache}, {ROWS} draws begin with the tokens "
                f"{at // 6}, {at % 6} {counts[at]} times, expected about "
                f"{ROWS * expected[at]:.0f} times. Is it next_token(logits[:, -1], **sampling) "
                "that draws?"
            )


def _probabilities(model: nn.Module, prompt: Tensor, sampling: dict[str, float]) -> Tensor:
    """How likely each pair of tokens (36) is after the prompt."""

    def likely(ids: Tensor) -> Tensor:
        logits = model(ids)[0][:, -1] / sampling["temperature"]
        logits = keep_top_k(logits, sampling["top_k"]) if "top_k" in sampling else logits
        return softmax(keep_top_p(logits, sampling["top_p"]) if "top_p" in sampling else logits)

    longer = torch.cat([prompt.expand(6, -1), torch.arange(6)[:, None]], dim=1)
    return (likely(prompt).T * likely(longer)).flatten()


def follows_its_seed(loop: Loop) -> None:
    """Raise AssertionError unless a generator decides what is drawn, and PyTorch's own without."""
    prompt = torch.tensor([[3, 1, 4]]).expand(20, -1)
    for use_cache, sampling in ((True, {}), (False, {}), (True, {"top_k": 9, "top_p": 0.95})):

        def told(
            seed: int | None, use_cache: bool = use_cache, sampling: dict = sampling
        ) -> list[list[int]]:
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            given = model_of(), prompt, 3, use_cache
            return [x.tolist() for x in told_by(loop, *given, generator=generator, **sampling)]

        if told(None) == told(None):
            raise AssertionError(
                f"With use_cache={use_cache}, without a generator, the same tokens come each time: "
                "none is drawn, or a seed is set."
            )
        if told(0) != told(0) or told(0) == told(1):
            raise AssertionError(
                f"With use_cache={use_cache}, the same generator has to give the same tokens, and "
                "another one others. Is **sampling handed on to next_token?"
            )
