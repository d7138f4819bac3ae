"""What the check cells of sampling call: which words stay, and the next token (notebook 03)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import generation as right
from .common import ask, close, has_shape, known, shape_or_type, unchanged, verdict


@verdict
def check_keep_top_k(keep_top_k: Callable[[Tensor, int], Tensor]) -> str:
    """Notebook 03, exercise 1. Returns a verdict; raises AssertionError on a wrong cut."""
    logits = torch.tensor([[1.0, 4.0, 2.0, 3.0, 0.0], [-5.0, -1.0, -2.0, -4.0, -3.0]])
    before = logits.clone()
    for k in (1, 2, 3, 5, 9):
        found = ask(keep_top_k, logits, k)
        unchanged([before], [logits])
        expected = right.keep_top_k(logits, k)
        _explain_kept(found, expected, logits, f"keep_top_k with k={k}")
    tied = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    expected = torch.tensor([[2.0, 1.0, 1.0, -math.inf]])
    _explain_kept(keep_top_k(tied, 2), expected, tied, "keep_top_k with k=2 and two words tied")
    return "keep_top_k is right: row by row, ties stay, and k may exceed the vocabulary."


def _stay(logits: Tensor) -> list[int]:
    """The words of one row that are left: those whose logit is not minus infinity."""
    return [i for i, x in enumerate(logits.tolist()) if x != -math.inf]


def _explain_kept(found: object, expected: Tensor, logits: Tensor, what: str) -> None:
    """Raise AssertionError, naming the words, unless the same words are left as in `expected`."""
    if has_shape(found, expected.shape):
        for row, numbers in enumerate(logits.tolist()):
            kept, wanted = _stay(found[row]), _stay(expected[row])
            if kept != wanted:
                numbers = [round(x, 2) for x in numbers]
                raise AssertionError(
                    f"{what}: of the logits {numbers}, those at {wanted} stay and all others "
                    f"become minus infinity; yours leaves {kept}."
                )
    close(found, expected, what)


@verdict
def check_keep_top_p(keep_top_p: Callable[[Tensor, float], Tensor]) -> str:
    """Notebook 03, exercise 2. Returns a verdict; raises AssertionError on a wrong nucleus."""
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3], [0.26, 0.24, 0.27, 0.23]]).log()
    before = logits.clone()
    for p in (0.3, 0.6, 0.9, 0.99, 1.0):
        found = keep_top_p(logits, p)
        unchanged([before], [logits])
        expected = right.keep_top_p(logits, p)
        empty = isinstance(found, Tensor) and (found == -math.inf).all(-1).any()
        if empty:
            raise AssertionError(
                f"keep_top_p with p={p}: no word is left in a row. The word that reaches p belongs "
                "to the nucleus: ask whether the words likelier than it have reached p already."
            )
        _explain_nucleus(found, expected, torch.softmax(logits, -1), p)
        _explain_kept(found, expected, logits, f"keep_top_p with p={p}")
    kept = int((keep_top_p(torch.zeros(1, 4), 0.5) > -math.inf).sum())
    if kept != 2:
        raise AssertionError(
            f"keep_top_p with p=0.5 leaves {kept} of four equally likely words. Two of them reach "
            "0.5: a word goes if those before it add up to p exactly, too."
        )
    return "keep_top_p is right: the fewest words that reach p, in their own places, never none."


def _explain_nucleus(found: object, expected: Tensor, probabilities: Tensor, p: float) -> None:
    """Raise AssertionError, in probabilities, unless the same words are kept as in `expected`."""
    if not has_shape(found, expected.shape):
        return
    for row, shares in enumerate(probabilities.tolist()):
        kept, wanted = _stay(found[row]), _stay(expected[row])
        if kept != wanted:
            advice = ""
            if len(kept) == len(wanted):
                advice = " The number is right: are the words back in their own places?"
            raise AssertionError(
                f"keep_top_p with p={p}: of words with the probabilities "
                f"{[round(x, 2) for x in shares]}, those at {wanted} stay; yours leaves {kept}."
                f"{advice}"
            )


@verdict
def check_next_token(next_token: Callable[..., Tensor]) -> str:
    """Notebook 03, exercise 3. Returns a verdict; raises AssertionError on a wrong choice."""
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.5, -1.0, 0.0, 2.0]])
    before = logits.clone()
    try:
        greedy = next_token(logits, 0)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise AssertionError(
            f"At temperature 0 something goes wrong ({error}). Nothing is divided by 0 there: "
            "take the likeliest token and return."
        ) from None
    close(greedy, torch.tensor([1, 3]), "the greedy token of each row")
    alone = next_token(logits[:1], 2.0, generator=torch.Generator().manual_seed(7))
    if not has_shape(alone, (1,)):
        raise AssertionError(
            f"For one row, next_token gave {shape_or_type(alone)}, expected (1,): one id per row."
        )
    unchanged([before], [logits])
    row = torch.tensor([2.0, 1.5, 1.0, 0.0])
    for temperature, top_k, top_p in (
        (1.0, None, None),
        (0.5, None, None),
        (2.0, None, None),
        (1.0, 2, None),
        (2.0, None, 0.7),
        (1.0, 2, 0.6),
        (1.0, 3, 0.83),
    ):
        _check_draws(next_token, row, temperature, top_k, top_p)
    first, again, other = (
        next_token(logits.repeat(50, 1), 1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (7, 7, 8)
    )
    if not torch.equal(first, again):
        raise AssertionError("The same seed gave other tokens. Is the generator handed on?")
    if torch.equal(first, other):
        raise AssertionError(
            "Another seed gave the same tokens. Draw with the generator that was handed in, and "
            "set no seed of your own."
        )
    return "next_token is right: greedy, three temperatures, top-k, top-p, both, and repeatable."


def _check_draws(
    next_token: Callable[..., Tensor],
    row: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    draws: int = 20_000,
) -> None:
    """Compare how often each token is drawn with its probability (to 5 standard deviations)."""
    options = f"temperature={temperature}, top_k={top_k}, top_p={top_p}"
    generator = torch.Generator().manual_seed(0)
    tokens = next_token(
        row.repeat(draws, 1), temperature, top_k=top_k, top_p=top_p, generator=generator
    )
    if not has_shape(tokens, (draws,)):
        raise AssertionError(
            f"For {draws} rows, next_token gave {shape_or_type(tokens)}, expected ({draws},)."
        )
    if tokens.dtype != torch.int64:
        raise AssertionError(f"next_token gave {tokens.dtype}; a token id is a torch.int64.")
    scaled = row[None] / temperature
    if top_k is not None:
        scaled = right.keep_top_k(scaled, top_k)
    if top_p is not None:
        scaled = right.keep_top_p(scaled, top_p)
    expected = torch.softmax(scaled, -1)[0]
    share = torch.bincount(tokens, minlength=len(row)) / draws
    spread = (expected * (1 - expected) / draws).sqrt()
    if ((share - expected).abs() > 5 * spread + 1e-9).any():
        mistakes = []
        if top_k is None and top_p is not None:
            cut = right.keep_top_p(row[None], top_p)[0] / temperature
            too_late = " The temperature comes first; it changes which words reach p."
            mistakes.append((torch.softmax(cut, -1), too_late))
        if temperature != 1:
            upside_down = " The logits are multiplied by the temperature; divide by it."
            mistakes.append((torch.softmax(row * temperature, -1), upside_down))
        advice = known(share, mistakes, atol=0.02)
        raise AssertionError(
            f"With {options} the tokens 0 to 3 came up with shares "
            f"{[round(s, 2) for s in share.tolist()]}, expected "
            f"{[round(s, 2) for s in expected.tolist()]}.{advice}"
        )
