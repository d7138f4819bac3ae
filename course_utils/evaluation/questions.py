"""Recall: which questions about a story a model answers right, and how far back (notebook 05)."""

import itertools

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..stories import Question, Story, Tokenizer, held_out_stories
from .model import on_device, uncached

RANGES = ((1, 128), (129, 512), (513, 1000))
RECALL_AIMS = {"1-128": 0.99, "129-512": 0.98, "513-1000": 0.95}


def answers_right(model: nn.Module, story: Story, use_cache: bool = False) -> list[bool]:
    """For each question of a story: would greedy decoding give the true answer, word for word?

    Without a cache the story is run once, true answers included, and each word of an answer must
    be the likeliest after the true words before it, which is the same thing. With a cache, each
    answer is decoded from a cache that holds the story up to its question.
    """
    ids = on_device(torch.tensor([Tokenizer().encode(story.words)]), model)
    if use_cache:
        return [_decodes(model, ids, question) for question in story.questions]
    likeliest = uncached(model, ids).argmax(-1)
    return [
        bool((likeliest[0, q.start - 1 : q.end - 1] == ids[0, q.start : q.end]).all())
        for q in story.questions
    ]


@torch.no_grad()
def _decodes(model: nn.Module, ids: Tensor, question: Question) -> bool:
    new, past_kv = ids[:, : question.start], None
    for position in range(question.start, question.end):
        logits, past_kv = model(new, past_kv=past_kv, use_cache=True)
        new = logits[:, -1:].argmax(-1)
        if new.item() != ids[0, position].item():
            return False
    return True


def recall(
    model: nn.Module,
    num_stories: int = 700,
    seed: int = 0,
    use_cache: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Recall accuracy by distance, in tokens, on held-out stories drawn with `seed`.

    Returns a table with one row per range of distances: questions (how many) and recall (0 to 1).
    """
    stories = itertools.islice(held_out_stories(seed), num_stories)
    counts = {f"{low}-{high}": [0, 0] for low, high in RANGES}
    for story in tqdm(stories, total=num_stories, desc="recall", disable=not progress):
        for question, right in zip(
            story.questions, answers_right(model, story, use_cache), strict=True
        ):
            for low, high in RANGES:
                if low <= question.distance <= high:
                    counts[f"{low}-{high}"][0] += 1
                    counts[f"{low}-{high}"][1] += right
    table = pd.DataFrame(counts, index=["questions", "right"]).T
    table["recall"] = table["right"] / table["questions"]
    return table.drop(columns="right")
