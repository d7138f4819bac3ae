"""What the check cells of the two loops call: generate and beam search (notebook 03)."""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import generation as right
from .common import ask, close, has_shape, pair, same, shape_or_type, tiny_model, verdict


@verdict
def check_generate(generate: Callable[..., Tensor]) -> str:
    """Notebook 03, exercise 4. Returns a verdict; raises AssertionError on a wrong loop."""
    model = tiny_model()
    fed = []
    model.register_forward_pre_hook(lambda _, args: fed.append(args[0].size(1)))
    for batch, prompt_len, new in ((1, 3, 5), (2, 4, 3), (1, 1, 1), (1, 2, 14), (1, 2, 0)):
        prompt = torch.arange(batch * prompt_len).view(batch, prompt_len) % 20
        fed.clear()
        found = ask(generate, model, prompt, new, 0)
        shape = (batch, prompt_len + new)
        if not has_shape(found, shape):
            raise AssertionError(
                f"A prompt of shape {(batch, prompt_len)} and {new} new tokens gave "
                f"{shape_or_type(found)}, expected {shape}: prompt and continuation together."
            )
        wanted = list(range(prompt_len, prompt_len + new))
        if fed != wanted:
            raise AssertionError(
                f"The model was run on {fed} tokens, expected {wanted}: one run per new token, "
                "each on the whole text so far."
            )
        expected = right.generate(model, prompt, new, 0, use_cache=False)
        _same_tokens(found, expected, "generate with temperature=0")
    greedy, *draws = (
        generate(model, prompt, 12, heat, generator=torch.Generator().manual_seed(1))
        for heat in (0, 5.0, 5.0)
    )
    if torch.equal(greedy, draws[0]):
        raise AssertionError("At temperature 5 the words are the greedy ones. Is it handed on?")
    if not torch.equal(*draws):
        raise AssertionError("The same seed gave other words. Is the generator handed on?")
    narrow = generate(model, prompt, 12, 5.0, top_k=1)
    if not torch.equal(narrow, greedy):
        raise AssertionError(
            "With top_k=1 only the likeliest word is left, at any temperature; yours draws others. "
            "Do all sampling options go on to next_token?"
        )
    return "generate is right: whole text each time, one sequence and two, greedy, drawn, cut."


def _same_tokens(found: object, expected: Tensor, what: str) -> None:
    """Raise AssertionError, with both rows, at the first row of ids that is not as expected."""
    if has_shape(found, expected.shape):
        for row, right_row in zip(found.tolist(), expected.tolist(), strict=True):
            if row != right_row:
                raise AssertionError(f"{what} gave the tokens {row}, expected {right_row}.")
    close(found, expected, what)


@verdict
def check_beam_search(beam_search: Callable[..., tuple[Tensor, Tensor]]) -> str:
    """Notebook 03, exercise 5. Returns a verdict; raises AssertionError on a wrong search."""
    model = tiny_model(vocab_size=5)
    prompt = torch.tensor([[1, 3, 2]])
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    texts = torch.cat([prompt.expand(len(every), -1), every], dim=1)
    with torch.no_grad():
        logs = torch.log_softmax(model(texts)[0][:, 2:-1], -1)
    exact = logs.gather(-1, every[..., None]).sum((1, 2))
    for beams in (1, 2, 25):
        found = beam_search(model, prompt, 3, beams)
        ids, scores = pair(found, "beam_search returns two things: ids and scores.")
        expected_ids, best = right.beam_search(model, prompt, 3, beams, False)
        if has_shape(ids, expected_ids.shape):
            _explain_beams(ids, scores, beams, exact, texts)
        _same_tokens(ids, expected_ids, f"the search with num_beams={beams}, best text first,")
        close(scores, best, f"the score, with num_beams={beams},")
    return "beam_search is right: with 1, 2 and 25 beams it finds the texts, and scores them truly."


def _explain_beams(ids: Tensor, scores: object, beams: int, exact: Tensor, texts: Tensor) -> None:
    """Raise AssertionError for what goes wrong in a search, in its own words.

    `exact` are the log-probabilities of all possible `texts`.
    """
    options = f"With num_beams={beams}"
    if (ids.min() < 0) or (ids.max() >= 5):
        raise AssertionError(
            f"{options} a text holds token {ids.max().item()}; this small model has 5. Divide by "
            "the number of columns of the logits, not by a number written down."
        )
    if len(ids.unique(dim=0)) < len(ids):
        raise AssertionError(
            f"{options} two texts are the same. At first there is one beam, so there is one row "
            "(or all others have a score of minus infinity)."
        )
    true = torch.stack([exact[(texts == row).all(1)].sum() for row in ids])
    if not has_shape(scores, true.shape):
        return
    if same(scores, true, 1e-4):
        if (true.sort(descending=True).values != true).any():
            raise AssertionError(f"{options} the texts are not in order: best first.")
        return
    wrong = int((~torch.isclose(scores.double(), true.double(), atol=1e-4)).nonzero()[0])
    raise AssertionError(
        f"{options} the text {ids[wrong].tolist()} has the score {scores[wrong].item():.3f}; the "
        f"logarithms of its words' probabilities add up to {true[wrong].item():.3f}. Is it the sum "
        "over all new words, and does each beam's whole text go with its child (ids[beam])?"
    )
