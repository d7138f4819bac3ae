"""A small model that keeps what it was run on, and how the loops of notebook 03 are called."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..transformer import DecoderOnlyTransformer
from .common import is_stub, raised
from .judged import Answer

ROOM = 20  # max_seq_len
HINTS = {
    "number of dimensions: got 2 and 1": "the new tokens have shape (B,): token[:, None] is (B, 1)",
    "must match except in dimension 0": "new tokens are appended with dim=1",
    "probability tensor contains": "torch.multinomial wants probabilities: logits and logarithms "
    "can be below 0, and a division by 0 gives inf or NaN",
    "cannot be converted to Scalar": "there is a token for each row: keep them in a tensor",
}


class Watched(DecoderOnlyTransformer):
    """A small random model that keeps what it is run on; its logits are far apart."""

    def __init__(self, seed: int, num_words: int, training: bool = False):
        torch.manual_seed(seed)
        super().__init__(num_words, 8, 16, 1, ROOM, num_heads=2, dropout=0.0)
        with torch.no_grad():
            self.output_projection.weight.mul_(3)
        self.train(training)
        self.fed: list[Tensor] = []

    def forward(self, input_ids: Tensor, *args: object, **options: object) -> tuple:
        self.fed.append(input_ids.clone())
        try:
            return super().forward(input_ids, *args, **options)
        except IndexError:
            last = self.output_projection.out_features - 1
            raise IndexError(f"the model is given a token that is not one of 0 to {last}") from None


def left_as_it_was(model: Watched, prompts: Tensor, training: bool, before: Tensor) -> None:
    """Raise AssertionError unless the model is in its mode, and the prompts are those of before."""
    if not torch.equal(before, prompts):
        raise AssertionError("changes the prompt that came in; work on a new tensor")
    if model.training != training:
        modes = ("evaluation", "training")
        raise AssertionError(
            f"leaves the model in {modes[model.training]} mode, and it was in {modes[training]} "
            "mode: the caller chooses that"
        )


def asked(answer: Callable, *given: object, **options: object) -> object:
    """What an answer returns; an error in it becomes the end of a sentence."""
    try:
        return answer(*given, **options)
    except Exception as error:
        if is_stub(error):
            raise
        hint = next((f" ({hint})" for words, hint in HINTS.items() if words in str(error)), "")
        raise AssertionError(f"{raised(error)}{hint}") from error


def without_complaint(answer: Answer) -> Answer:
    """For the last of the known mistakes: what the answer itself gives, unless it complains."""

    def wrong(case: object) -> object:
        try:
            return answer(case)
        except AssertionError:
            return None

    return wrong
