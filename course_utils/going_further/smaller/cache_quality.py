"""What a smaller cache costs: perplexity, and recall by distance (chapter 09).

`python -m course_utils.going_further.smaller.cache_quality` measures every contender on the 60
stories of data/held_out_stories.jsonl and keeps the result in data/smaller_caches.csv (some minutes
on two cores; an interrupted run goes on, --fresh starts again).
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ...stories import Question, Story, Tokenizer, split
from ...transformer import ROOT, DecoderOnlyTransformer, load_model
from .eviction import evicting
from .grouped_heads import grouped, uptrained
from .packed_numbers import CHANNEL, TOKEN, quantized
from .smaller_caches import approximate
from .window import WindowCache, windowed

STORIES = ROOT / "data" / "held_out_stories.jsonl"
MEASURED = ROOT / "data" / "smaller_caches.csv"
WINDOWS = (16, 32, 64, 128, 256, 512)
BUDGETS = (64, 128, 256, 512)
SINKS = 4
EDGES = (0, 16, 32, 64, 128, 256, 512, 1024)


def held_out(path: Path | str = STORIES) -> list[Story]:
    """The stored stories with their questions."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [
        Story(split(line["text"]), [Question(**question) for question in line["questions"]])
        for line in map(json.loads, lines)
    ]


@torch.no_grad()
def quality(
    model: nn.Module, stories: Sequence[Story], use_cache: bool = False, batch: int = 1
) -> pd.DataFrame:
    """A row per story: `tokens` predicted, `loss` (summed, nats), `answers` as in "1101".

    A question counts (1) if each word of its answer is the likeliest after the words before it.
    With `use_cache` the stories go through the model's cache, else through its rule.
    """
    rows = []
    for start in range(0, len(stories), batch):
        some = stories[start : start + batch]
        ids = [torch.tensor(Tokenizer().encode(story.words)) for story in some]
        padded = pad_sequence(ids, batch_first=True).to(model.device)
        logits = model(padded, use_cache=use_cache)[0].cpu()
        rows += [_judge(*each) for each in zip(some, ids, logits, strict=True)]
    return pd.DataFrame(rows, columns=["tokens", "loss", "answers"])


def _judge(story: Story, ids: Tensor, logits: Tensor) -> tuple[int, float, str]:
    logits, targets = logits[: len(ids) - 1], ids[1:]
    loss = F.cross_entropy(logits, targets, reduction="sum").item()
    hit = logits.argmax(-1) == targets
    answers = [bool(hit[q.start - 1 : q.end - 1].all()) for q in story.questions]
    return len(targets), loss, "".join(str(int(right)) for right in answers)


def perplexity(measured: pd.DataFrame) -> float:
    """exp of the mean loss per token, of what `quality` returns."""
    return math.exp(measured["loss"].sum() / measured["tokens"].sum())


def answers(measured: pd.DataFrame, stories: Iterable[Story]) -> pd.DataFrame:
    """A row per question: its `distance`, and whether the answer was `right`."""
    rows = [
        (question.distance, mark == "1")
        for story, marks in zip(stories, measured["answers"], strict=True)
        for question, mark in zip(story.questions, marks, strict=True)
    ]
    return pd.DataFrame(rows, columns=["distance", "right"])


def summary(
    kept: dict[str, pd.DataFrame], stories: Sequence[Story], names: Iterable[str]
) -> pd.DataFrame:
    """Recall over all questions, and perplexity: a row per name."""
    rows = {
        name: (answers(kept[name], stories)["right"].mean(), perplexity(kept[name]))
        for name in names
    }
    return pd.DataFrame(rows, index=["recall", "perplexity"]).T


def agree(now: pd.DataFrame, then: pd.DataFrame) -> bool:
    """Whether two measurements of the same stories are one, up to rounding on another machine.

    Perplexity to 1 %, and 19 answers of 20 the same.
    """
    pairs = zip("".join(now["answers"]), "".join(then["answers"]), strict=True)
    same = [a == b for a, b in pairs]
    return abs(perplexity(now) / perplexity(then) - 1) < 0.01 and sum(same) >= 0.95 * len(same)


def by_distance(
    measured: pd.DataFrame, stories: Iterable[Story], edges: Sequence[int] = EDGES
) -> pd.DataFrame:
    """Recall in ranges of distance: `questions` (how many) and `recall`, by the range's far end."""
    table = answers(measured, stories)
    far_end = pd.cut(table["distance"], edges, labels=edges[1:])
    found = table.groupby(far_end, observed=True)["right"].agg(["count", "mean"])
    return found.set_axis(["questions", "recall"], axis=1)


def whole_but(model: DecoderOnlyTransformer, layers: Iterable[int], window: int) -> list[int]:
    """Windows for each layer: `window` in `layers` (the first is 1), everything in the others."""
    layers = set(layers)
    return [window if i + 1 in layers else model.max_seq_len for i in range(model.num_layers)]


def keeping(model: DecoderOnlyTransformer, window: int, first: int, last: int) -> nn.Module:
    """The rule of a window that also keeps positions `first` to `last` (there is no cache for it).

    To tell sinks from their words: sinks are positions 0, 1, 2, ...
    """

    def rule(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        position = torch.arange(q.size(2), device=q.device)
        also = (position >= first) & (position <= last)
        causal = position <= position[:, None]
        mask = causal & ((position > position[:, None] - window) | also)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return approximate(model, rule, WindowCache)


Contender = Callable[[DecoderOnlyTransformer], DecoderOnlyTransformer]


def contenders() -> dict[str, Contender]:
    """Every cache that is measured, by name: what makes it of the course's model."""
    made: dict[str, Contender] = {"whole cache": lambda model: model}
    for heads in (2, 1):
        name = "1 head" if heads == 1 else f"{heads} heads"
        made[f"{name}, pooled"] = lambda m, n=heads: grouped(m, n)
        made[f"{name}, uptrained"] = lambda m, n=heads: uptrained(m, n)
    for window in WINDOWS:
        made[f"window {window}"] = lambda m, w=window: windowed(m, w)
        made[f"window {window}, layer 1 whole"] = lambda m, w=window: windowed(
            m, whole_but(m, (2, 3, 4), w)
        )
    for layer in (1, 2, 3, 4):
        made[f"window 128, layer {layer} only"] = lambda m, i=layer: windowed(
            m, whole_but(m, (i,), 128)
        )
    for window in (16, 32):
        made[f"window {window}, sinks"] = lambda m, w=window: windowed(m, w, SINKS)
        for first, last in ((0, 0), (1, 3), (4, 7), (20, 23), (40, 43), (100, 103)):
            name = f"window {window}, also {first} to {last}"
            made[name] = lambda m, w=window, f=first, t=last: keeping(m, w, f, t)
    for bits in (8, 4, 2):
        for keys in (CHANNEL, TOKEN):
            for values in (CHANNEL, TOKEN):
                made[f"{bits} bits, keys per {keys}, values per {values}"] = (
                    lambda m, how=(bits, keys, values): quantized(m, *how)
                )
    for budget in BUDGETS:
        made[f"eviction {budget}"] = lambda m, b=budget: evicting(m, b)
    made["2 heads, uptrained, 4 bits"] = lambda m: quantized(uptrained(m, 2), 4)
    return made


def load_measured(path: Path | str = MEASURED) -> dict[str, pd.DataFrame]:
    """The kept measurements by contender, each as `quality` returns it."""
    table = pd.read_csv(path, dtype={"answers": str}, keep_default_na=False)
    return {
        name: part.drop(columns="cache").reset_index(drop=True)
        for name, part in table.groupby("cache", sort=False)
    }


def measure(path: Path, fresh: bool = False) -> None:
    """Measure all contenders that `path` does not have yet, writing after each."""
    model, stories = load_model(device="cpu"), held_out()
    found = {} if fresh or not path.exists() else load_measured(path)
    for name, make in tqdm(contenders().items(), desc="caches"):
        if name in found:
            continue
        through_cache = name.startswith("eviction")
        options = {"use_cache": True, "batch": 10} if through_cache else {}
        found[name] = quality(make(model), stories, **options).round({"loss": 3})
        table = pd.concat(found[each].assign(cache=each) for each in contenders() if each in found)
        part = path.with_suffix(".part")
        table[["cache", "tokens", "loss", "answers"]].to_csv(part, index=False)
        part.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the smaller caches of chapter 09.")
    parser.add_argument("--fresh", action="store_true", help="discard what was measured before")
    measure(MEASURED, parser.parse_args().fresh)
