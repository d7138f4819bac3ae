"""What the check cells of guessed tokens call: which are kept, what is left of p (chapter 10)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ....checks.common import ask, has_shape, known, shape_or_type, verdict


@verdict
def check_accept_greedy(accept_greedy: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Chapter 10, exercise 4. Returns a verdict; raises AssertionError on wrong tokens."""
    for guesses, likeliest in (
        ([5, 6, 7], [5, 6, 8, 9]),
        ([5, 6, 7], [5, 6, 7, 9]),
        ([5, 6, 7], [4, 6, 7, 9]),
        ([5, 6, 7, 8], [5, 1, 7, 8, 2]),
        ([3, 3], [3, 4, 3]),
        ([], [9]),
    ):
        right = 0
        while right < len(guesses) and guesses[right] == likeliest[right]:
            right += 1
        expected = likeliest[: right + 1]
        given = (torch.tensor(row, dtype=torch.long) for row in (guesses, likeliest))
        found = ask(accept_greedy, *given)
        if not isinstance(found, Tensor) or found.dim() != 1:
            raise AssertionError(
                f"Expected a tensor of tokens, such as {expected}; found {found!r}."
            )
        if found.tolist() != expected:
            raise AssertionError(
                f"Guesses {guesses}, and the model finds likeliest {likeliest}: the next tokens "
                f"are {expected}, found {found.tolist()}. "
                + _why_accepted(found.tolist(), guesses, likeliest, right)
            )
    return "accept_greedy is right: as far as the guesses go, and one token more."


def _why_accepted(found: list, guesses: list, likeliest: list, right: int) -> str:
    if found == likeliest[:right]:
        return "The pass says one token more: what comes instead of, or after, the guesses."
    if found == [*likeliest[:right], likeliest[-1]]:
        return "After the last right guess, take the model's token of *that* place."
    if found and found[: right + 1] == guesses[: right + 1] and right < len(guesses):
        return f"Guess {right + 1} is wrong, and what the model writes there is {likeliest[right]}."
    if len(found) > right + 1:
        return "After a wrong guess, later ones were made for another text, even if they agree."
    return "likeliest[i] is what the model writes in the place of guess i."


@verdict
def check_residual(residual: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Chapter 10, exercise 5. Returns a verdict; raises AssertionError on a wrong distribution."""
    torch.manual_seed(0)
    hand = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.6, 0.2]])
    drawn = torch.rand(2, 4, 6, dtype=torch.float64).softmax(-1).unbind()
    nothing = torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2)
    for p, q in (hand, drawn, nothing):
        found = ask(residual, p.clone(), q.clone())
        more = (p - q).clamp(min=0)
        expected = more / more.sum(-1, keepdim=True)
        if not has_shape(found, p.shape):
            raise AssertionError(
                f"Expected the shape of p and q, {tuple(p.shape)}; found {shape_or_type(found)}."
            )
        if torch.allclose(found, expected, atol=1e-6):
            continue
        story = f"p = {_short(p)}, q = {_short(q)}: found {_short(found)}, expected "
        story += f"{_short(expected)}. "
        raise AssertionError(story + _why_residual(found, p, q, more))
    same = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    found = residual(same.clone(), same.clone())
    if not torch.equal(found, same):
        raise AssertionError(
            f"p and q the same: found {found.tolist()}. No guess is ever refused then, but a sum "
            "of 0 must not become NaN (the rows of a batch are computed together): return p."
        )
    return "residual is right: where p exceeds q, by how much, and the sum is 1."


def _short(p: Tensor) -> str:
    return "[" + ", ".join(f"{x:.2f}" for x in p.reshape(-1, p.size(-1))[0].tolist()) + "]"


def _why_residual(found: Tensor, p: Tensor, q: Tensor, more: Tensor) -> str:
    less, apart = (q - p).clamp(min=0), (p - q).abs()
    mistakes = [
        (
            p,
            "That is p. But the guesses that were kept have had their share of p already: drawn "
            "from p, what q likes would come too often.",
        ),
        (more, "It does not sum to 1 yet."),
        (
            less / less.sum(-1, keepdim=True),
            "That is where q exceeds p. The model that has the last word is p.",
        ),
        (
            apart / apart.sum(-1, keepdim=True),
            "Where q exceeds p the guesses brought too much already: nothing is left there.",
        ),
        (
            more / more.sum(),
            "Each row is a distribution of its own: the sum is over the last dimension.",
        ),
    ]
    if why := known(found, mistakes, atol=1e-6):
        return why
    if (found < 0).any():
        return "A probability below 0: where q exceeds p, nothing is left."
    return "It is max(0, p - q), divided by its sum."
