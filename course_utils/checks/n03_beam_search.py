"""What the check cell of beam search calls (notebook 03)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from .. import generation as right
from .common import shape_or_type, verdict
from .elsewhere import beyond_the_card
from .judged import Answer, judge
from .watched import (
    ROOM,
    Watched,
    asked,
    left_as_it_was,
    long_prompt,
    without_complaint,
    written_prompts,
)

BeamSearch = Callable[..., tuple[Tensor, Tensor]]

ROUNDING = 1e-4  # what scores may differ by
ERRORS = {
    "index k out of range": "asks topk for more candidates than there are: in the first step there "
    "are as many as words. Take min(num_beams, candidates.numel())",
    "the model is given a token": "gives the model a token that it does not know. In the flat "
    "table, index i is token i % V and beam i // V, with V = logits.size(-1)",
    "is out of bounds for dimension 0": "asks for a beam that does not exist. In the flat table, "
    "index i is token i % V and beam i // V, with V = logits.size(-1)",
}


@dataclass(frozen=True)
class _Search:
    """What beam_search is called with: a prompt for a model made from a seed, and sizes."""

    seed: int
    num_words: int
    prompt: tuple[int, ...]
    new: int
    num_beams: int
    training: bool = False

    def __str__(self) -> str:
        given = f"{written_prompts([self.prompt])}, {self.new}, {self.num_beams}"
        return f"beam_search(model, {given}), with a model of {self.num_words} words,"

    def model(self) -> Watched:
        room = max(ROOM, len(self.prompt) + self.new)
        return Watched(self.seed, self.num_words, self.training, room)

    def logs(self, ids: Tensor, kind: Callable = torch.log_softmax) -> Tensor:
        """The logarithm of each new word's probability (B, new) in such texts."""
        with torch.no_grad():
            logits = self.model()(ids[:, :-1])[0]
        return kind(logits, -1).gather(-1, ids[:, 1:, None])[..., 0][:, len(self.prompt) - 1 :]


@st.composite
def _searches(draw: st.DrawFn) -> _Search:
    num_words = draw(st.sampled_from((3, 2, 5, 20)))
    new = draw(st.integers(1, 4))
    length = draw(st.one_of(st.integers(1, 3), st.just(ROOM - new)))
    prompt = draw(st.tuples(*[st.integers(0, num_words - 1)] * length))
    num_beams = draw(st.integers(1, min(num_words**new, 30)))
    return _Search(draw(st.integers(0, 9)), num_words, prompt, new, num_beams, draw(st.booleans()))


def _found(beam_search: BeamSearch) -> Answer:
    """Ids and scores, after a look at what goes wrong whatever the search finds."""

    def answer(search: _Search) -> object:
        model, prompt = search.model(), torch.tensor([search.prompt])
        try:
            found = asked(beam_search, model, prompt, search.new, search.num_beams)
        except AssertionError as error:
            words = (advice for words, advice in ERRORS.items() if words in str(error))
            raise AssertionError(next(words, str(error))) from error
        left_as_it_was(model, prompt, search.training, torch.tensor([search.prompt]))
        if not isinstance(found, tuple) or len(found) != 2:
            raise AssertionError(f"gives {shape_or_type(found)}, expected two things: ids, scores")
        ids, scores = found
        _explain_ids(ids, search)
        _explain_scores(ids, scores, search)
        return {"the texts": ids, "their scores": scores.float()}

    return answer


def _explain_ids(ids: object, search: _Search) -> None:
    shape = (search.num_beams, len(search.prompt) + search.new)
    if not isinstance(ids, Tensor) or ids.shape != shape:
        raise AssertionError(
            f"gives ids {shape_or_type(ids)}, expected {shape}: as many texts as beams, which can "
            "be fewer only in the first steps, each with the prompt"
        )
    if ids.dtype != torch.int64:
        raise AssertionError(f"gives ids of dtype {ids.dtype}; token ids are torch.int64")
    outside = ids[(ids < 0) | (ids >= search.num_words)].tolist()
    if outside:
        said = f"finds a text with token {outside[0]}: there are {search.num_words} words"
        fixed = ". Divide by the number of columns of the logits, not by a fixed number"
        raise AssertionError(said + fixed * (outside[0] > 0))
    if (ids[:, : len(search.prompt)] != torch.tensor(search.prompt)).any():
        raise AssertionError("finds a text that does not begin with the prompt")
    if len(ids.unique(dim=0)) < len(ids):
        raise AssertionError(
            "finds the same text twice. At first there is one beam, so there is one row (or all "
            "others have a score of minus infinity)"
        )


def _explain_scores(ids: Tensor, scores: object, search: _Search) -> None:
    """Raise AssertionError unless the scores are those of the texts, and the best comes first."""
    if not isinstance(scores, Tensor) or scores.shape != (len(ids),):
        raise AssertionError(
            f"gives scores {shape_or_type(scores)}, expected ({len(ids)},): one for each text"
        )
    logs = search.logs(ids)
    true = logs.sum(1)
    if not _alike(scores, true):
        logits = search.logs(ids, lambda logits, _: logits).sum(1)
        wrong = [
            (logits, "The logits are added up: take their log_softmax first"),
            (
                torch.zeros_like(true),
                "All scores are 0: log_softmax goes over the words, and is added",
            ),
            (true / math.log(2), "Take natural logarithms, as log_softmax does"),
            (true / math.log(10), "Take natural logarithms, as log_softmax does"),
            (true.exp(), "These are probabilities: leave the logarithms as they are"),
            (logs.exp().sum(1), "Probabilities are added up: take log_softmax, not softmax"),
            (true / search.new, "The sum is divided by the number of words: leave it as it is"),
            (logs[:, -1], "It is the last word's alone: add the score of its beam"),
            (-true, "The sign is wrong"),
        ]
        otherwise = (
            "It is the sum over all new words, and each beam's whole text goes with its child: "
            "ids[beam]"
        )
        advice = next((said for sums, said in wrong if _alike(scores, sums)), otherwise)
        at = int((scores.detach().double() - true).abs().nan_to_num(torch.inf).argmax())
        raise AssertionError(
            f"gives the text {ids[at].tolist()} the score {scores[at].item():.3f}; the logarithms "
            f"of its words' probabilities add up to {true[at].item():.3f}. {advice}"
        )
    if not _alike(true, true.sort(descending=True).values):
        raise AssertionError("gives texts that are not in order: the best comes first")


def _alike(scores: Tensor, others: Tensor) -> bool:
    return torch.allclose(scores.double(), others.double(), rtol=1e-5, atol=ROUNDING)


def _searching(best: Callable[[Tensor, Tensor, int], Tensor], in_order: bool = True) -> Answer:
    """A search that goes on with `best(logs, scores, num_beams)` of the flat table (beams, V)."""

    @torch.no_grad()
    def beam_search(model: Watched, ids: Tensor, new: int, num_beams: int) -> tuple:
        scores = torch.zeros(1)
        for _ in range(new):
            logs = torch.log_softmax(model(ids)[0][:, -1], -1)
            chosen = best(logs, scores, min(num_beams, logs.numel()))
            scores = (scores[:, None] + logs).flatten()[chosen]
            ids = torch.cat([ids[chosen // logs.size(-1)], chosen[:, None] % logs.size(-1)], 1)
        order = scores.argsort(descending=True) if in_order else torch.arange(len(scores))
        return ids[order], scores[order]

    return _found(beam_search)


def _one_child_each(logs: Tensor, scores: Tensor, num_beams: int) -> Tensor:
    if len(logs) < num_beams:
        return (scores[:, None] + logs).flatten().topk(num_beams).indices
    return logs.argmax(-1) + torch.arange(len(logs)) * logs.size(-1)


def _by_last_word(logs: Tensor, scores: Tensor, num_beams: int) -> Tensor:
    return logs.flatten().topk(num_beams).indices


WRONG_SEARCHES = [
    *(
        (
            _searching(_one_child_each, in_order),
            "Each beam goes on with its own best word. Compare the candidates of all beams: one "
            "beam may have several children, another none.",
        )
        for in_order in (True, False)
    ),
    *(
        (
            _searching(_by_last_word, in_order),
            "Candidates are chosen by their last word alone: add the score of their beam first.",
        )
        for in_order in (True, False)
    ),
    (
        _searching(
            lambda logs, scores, num_beams: (
                (scores[:, None] + logs).flatten().topk(num_beams, largest=False).indices
            )
        ),
        "The least likely candidates are kept.",
    ),
]


@verdict
def check_beam_search(beam_search: BeamSearch) -> str:
    """Notebook 03, exercise 5. Returns a verdict; raises AssertionError on a wrong search."""

    @torch.no_grad()
    def expected(search: _Search) -> object:
        prompt = torch.tensor([search.prompt])
        found = right.beam_search(search.model(), prompt, search.new, search.num_beams, False)
        return dict(zip(("the texts", "their scores"), found, strict=True))

    judge(
        _found(beam_search),
        expected,
        _searches(),
        [
            *WRONG_SEARCHES,
            (
                without_complaint(_found(beam_search)),
                "In each step the best candidates of all beams are kept.",
            ),
        ],
        first=[
            *(_Search(0, 5, (1, 3, 2), 3, beams) for beams in (1, 2, 25)),
            _Search(0, 50, (1, 3, 2), 6, 60),
            _Search(0, 50, long_prompt(50), 2, 2),
        ],
        number=40,
    )
    more = beyond_the_card(
        lambda model, device: beam_search(model, torch.ones(1, 3, device=device).long(), 3, 4),
        "beam_search",
        Watched(0, 5),
    )
    return (
        f"beam_search is right: with 1, 2 and 25 beams it finds the texts and their scores.{more}"
    )
