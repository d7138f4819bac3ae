"""A small model that keeps what it was run on, and how the loops of notebook 03 are called."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..transformer import DecoderOnlyTransformer
from .common import is_stub, raised, shape_or_type
from .judged import Answer

ROOM = 20  # max_seq_len
LONG = 1100
HINTS = {
    "number of dimensions: got 2 and 1": "the new tokens have shape (B,): token[:, None] is (B, 1)",
    "must match except in dimension 0": "new tokens are appended with dim=1",
    "probability tensor contains": "torch.multinomial wants probabilities: logits and logarithms "
    "can be below 0, and a division by 0 gives inf or NaN",
    "cannot be converted to Scalar": "there is a token for each row: keep them in a tensor",
}


class Watched(DecoderOnlyTransformer):
    """A small random model that keeps what it is run on; its logits are far apart."""

    def __init__(self, seed: int, num_words: int, training: bool = False, room: int = ROOM):
        torch.manual_seed(seed)
        super().__init__(num_words, 8, 16, 1, room, num_heads=2, dropout=0.0)
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


def long_prompt(num_words: int) -> tuple[int, ...]:
    """A text that is longer than the usual windows."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randint(num_words, (LONG,), generator=generator).tolist())


def written_prompts(prompts: Sequence[Sequence[int]]) -> str:
    """The prompts as lists, or their shape where they are long."""
    length = len(prompts[0])
    return str([*map(list, prompts)]) if length <= ROOM else f"<ids ({len(prompts)}, {length})>"


def explain_texts(found: object, prompts: Tensor, new: int) -> None:
    """Raise AssertionError unless it is token ids that begin with the prompts."""
    shape = (len(prompts), prompts.size(1) + new)
    if not isinstance(found, Tensor) or found.shape != shape:
        raise AssertionError(
            f"gives {shape_or_type(found)}, expected {shape}: prompt and continuation together, "
            "and all the new tokens that were asked for"
        )
    if found.dtype != torch.int64:
        raise AssertionError(f"has dtype {found.dtype}; token ids are torch.int64")
    if not torch.equal(found[:, : prompts.size(1)], prompts):
        raise AssertionError("does not begin with the prompt")


def explain_runs(found: Tensor, fed: list[Tensor], prompt_len: int) -> None:
    """Raise AssertionError unless each run was on all that the texts held by then."""
    lengths, wanted = [ids.size(1) for ids in fed], list(range(prompt_len, found.size(1)))
    if lengths != wanted:
        raise AssertionError(
            f"runs the model on {lengths} tokens, expected {wanted}: one run per new token, each "
            "on the whole text so far"
        )
    for ids, length in zip(fed, lengths, strict=True):
        text = found[:, :length]
        if ids.shape != text.shape:
            raise AssertionError(f"runs the model on {len(ids)} rows, expected {len(text)}")
        for mine, theirs in zip(ids[(ids != text).any(1)], text[(ids != text).any(1)], strict=True):
            raise AssertionError(
                f"runs the model on {mine.tolist()} where the text so far is {theirs.tolist()}: "
                "what was drawn is appended, and fed in the next step"
            )


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
