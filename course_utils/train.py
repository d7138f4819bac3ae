"""Train the course model from nothing: `python3 course.py train` (30 to 50 minutes, two cores).

Stories alone do not teach recall in reasonable time: the model learns to name the place that was
mentioned last, and stays there. So training starts with pure repetition, which teaches it to find
an earlier occurrence of the current token and look at what came next. In a question that is not
enough: the current token is "the", and what has to be found is the thing named some tokens before
it. So things and their places follow, first side by side, then with more and more words between.
After that stories come easily: dense short ones, then longer ones with more between a fact and its
question.
Every example is drawn from its step's number: none is seen twice, and a run that was interrupted
goes on as if nothing had happened.
"""

import argparse
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from . import plots
from .attention import FusedAttention
from .stories import PAD, WORDS, Story, Tokenizer, make_story
from .transformer import ROOT, WEIGHTS, DecoderOnlyTransformer

TRAINING_DIR = ROOT / "training"
GAP_WORDS = "in the It is ? was now and put it hid left to who ,".split()
LOG_EVERY = 100
WARM_UP = 200
TOKENIZER = Tokenizer()
MODEL_CONFIG = {
    "vocab_size": TOKENIZER.vocab_size,
    "d_model": 128,
    "d_ff": 512,
    "num_layers": 4,
    "max_seq_len": 1280,
    "num_heads": 4,
}


@dataclass(frozen=True)
class Stage:
    """Some steps on examples of one kind and length; the rest as in `stories.make_story`.

    `filler` and `gap` are ranges to draw from; `with_gap` is the share of stories that have one.
    """

    name: str
    steps: int
    length: int
    batch: int
    filler: tuple[float, float] = (0.0, 0.0)
    gap: tuple[float, float] = (0.0, 0.0)
    with_gap: float = 0.0
    moves: float = 0.4


STAGES = [
    Stage("repetition", 2400, 64, 40),
    Stage("pairs", 2400, 64, 40),
    Stage("stories of 96", 1600, 96, 32, gap=(0.5, 0.5), with_gap=1.0, moves=0.2),
    Stage("stories of 160", 1000, 160, 20, (0.0, 0.3), gap=(0.3, 0.6), with_gap=0.6),
    Stage("stories of 256", 1200, 256, 12, (0.0, 0.6), gap=(0.2, 0.8), with_gap=0.6),
    Stage("stories of 512", 1200, 512, 6, (0.2, 0.8), gap=(0.1, 0.9), with_gap=0.6),
    Stage("stories of 1024", 1800, 1024, 4, (0.3, 0.9), gap=(0.1, 0.9), with_gap=0.6),
]
TOTAL_STEPS = sum(stage.steps for stage in STAGES)


def new_model(seed: int) -> DecoderOnlyTransformer:
    """An untrained course model; positions start as sinusoids, as large as token embeddings."""
    torch.manual_seed(seed)
    model = DecoderOnlyTransformer(**MODEL_CONFIG, dropout=0.0)
    for layer in model.layers:
        layer.attention = FusedAttention(MODEL_CONFIG["d_model"], model.num_heads)
    with torch.no_grad():
        model.token_embedding.weight.mul_(math.sqrt(0.5))
        model.pos_embedding.weight.copy_(sinusoids(*model.pos_embedding.weight.shape))
    return model


def sinusoids(length: int, dim: int) -> Tensor:
    """Sinusoidal positions (length, dim). Source: Vaswani et al., 2017, section 3.5."""
    wavelength = 10_000 ** (torch.arange(0, dim, 2) / dim)
    angle = torch.arange(length)[:, None] / wavelength
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def repetitions(rng: random.Random, length: int) -> tuple[list[int], list[float]]:
    """A random run of 4 to 32 tokens, repeated to `length`; only the repeats count in the loss."""
    run = [rng.randrange(3, TOKENIZER.vocab_size) for _ in range(rng.randint(4, 32))]
    ids = (run * (length // len(run) + 1))[:length]
    return ids, [float(i >= len(run)) for i in range(length)]


def pairs(rng: random.Random, length: int, max_gap: int) -> tuple[list[int], list[float]]:
    """Things and their places with up to `max_gap` other words between; now and then one moves.

    Only places that can be known count in the loss. Where nothing comes between, this is
    repetition; as the gap grows, the model learns to go by the last thing named, not by the last
    word.
    """
    things = list(zip(rng.sample(WORDS["colour"], 5), rng.sample(WORDS["object"], 5), strict=True))
    places = list(
        zip(rng.sample(WORDS["material"], 6), rng.sample(WORDS["container"], 6), strict=True)
    )
    things = things[: rng.randint(2, 5)]
    where, words, weights = {}, [], []
    while len(words) < length:
        thing = rng.choice(things)
        known = thing in where and rng.random() < 0.85
        if not known:
            where[thing] = rng.choice(places)
        gap = rng.choices(GAP_WORDS, k=rng.randint(0, max_gap))
        words += [*thing, *gap, *where[thing], "."]
        weights += [0.0] * (2 + len(gap)) + [10.0 * known] * 2 + [0.0]
    return TOKENIZER.encode(words[:length]), weights[:length]


def weighted_story(story: Story, length: int) -> tuple[list[int], list[float]]:
    """Ids and loss weights, padded: 10 for the two words that name the place in an answer."""
    ids, weights = TOKENIZER.encode(story.words), [1.0] * len(story.words)
    for question in story.questions:
        weights[question.end - 3 : question.end - 1] = [10.0, 10.0]
    padding = length - len(ids)
    return ids + TOKENIZER.encode([PAD]) * padding, weights + [0.0] * padding


def example(stage: Stage, rng: random.Random, done: float) -> tuple[list[int], list[float]]:
    """Ids and loss weights of one example; `done` is the share of the stage that is over."""
    if stage.name == "repetition":
        return repetitions(rng, stage.length)
    if stage.name == "pairs":
        return pairs(rng, stage.length, max_gap=min(7, int(10 * done)))
    gap = tuple(sorted(rng.uniform(*stage.gap) for _ in range(2)))
    filler = rng.uniform(*stage.filler)
    gap = gap if rng.random() < stage.with_gap else None
    return weighted_story(make_story(rng, stage.length, filler, gap, stage.moves), stage.length)


def batch(stage: Stage, rng: random.Random, done: float) -> tuple[Tensor, Tensor]:
    """Ids and loss weights (B, T) of one step."""
    ids, weights = zip(*(example(stage, rng, done) for _ in range(stage.batch)), strict=True)
    return torch.tensor(ids), torch.tensor(weights)


def loss_and_recall(
    model: DecoderOnlyTransformer, ids: Tensor, weights: Tensor, start: int
) -> tuple[Tensor, float]:
    """Weighted cross-entropy, and the share of the heaviest tokens that are predicted right."""
    x = model.embed(ids[:, :-1], start)
    for layer in model.layers:
        x = layer(x)
    logits, targets, weights = model.output_projection(model.norm(x)), ids[:, 1:], weights[:, 1:]
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    answers = weights == weights.max()
    recall = (logits.argmax(-1) == targets)[answers].float().mean()
    return (losses * weights.flatten()).sum() / weights.sum(), recall.item()


def learning_rate(step: int) -> float:
    """Warm-up over 200 steps to 1e-3; over the last quarter a cosine down to 2e-5."""
    left = min(1.0, (TOTAL_STEPS - step) / (TOTAL_STEPS / 4))
    cosine = (1 - math.cos(math.pi * left)) / 2
    return 1e-3 * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


def stage_at(step: int) -> tuple[Stage, float]:
    """The stage that `step` falls in, and the share of it that is over."""
    for stage in STAGES:
        if step < stage.steps:
            return stage, step / stage.steps
        step -= stage.steps
    raise ValueError(f"There are only {TOTAL_STEPS} steps.")


def train_step(
    model: DecoderOnlyTransformer, optimizer: torch.optim.Optimizer, step: int, seed: int
) -> tuple[float, float]:
    """One update; returns loss and recall. The same `seed` and `step` see the same examples."""
    rng = random.Random(f"train {seed} {step}")
    stage, done = stage_at(step)
    ids, weights = batch(stage, rng, done)
    start = rng.randint(0, model.max_seq_len - stage.length) if step >= WARM_UP else 0
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step)
    loss, recall = loss_and_recall(model, ids, weights, start)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item(), recall


def save_whole(state: object, path: Path) -> None:
    """Write beside the target and rename, so that an interruption leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def train(folder: Path, seed: int = 0, steps: int = TOTAL_STEPS) -> pd.DataFrame:
    """Train up to `steps` steps, going on from `folder`/checkpoint.pt if there is one.

    Returns the log: step, stage, loss and recall, averaged over 100 steps each. Raises ValueError
    if the checkpoint was made with another seed.
    """
    model = new_model(seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99))
    step, log, recent = 0, [], []
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["seed"] != seed:
            raise ValueError(
                f"{checkpoint} was made with seed {saved['seed']}, not {seed}. "
                "Use --fresh to start again."
            )
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, log = saved["step"], saved["log"]
    bar = tqdm(total=steps, initial=step, desc="training", unit="step")
    while step < steps:
        recent.append(train_step(model, optimizer, step, seed))
        step += 1
        bar.update()
        if step % LOG_EVERY == 0 or step == steps:
            loss, recall = (sum(column) / len(recent) for column in zip(*recent, strict=True))
            recent = []
            name = stage_at(step - 1)[0].name
            log.append([step, name, round(loss, 4), round(recall, 4)])
            bar.set_postfix_str(f"{name}: loss {loss:.3f}, recall {recall:.3f}")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_whole(state | {"step": step, "log": log, "seed": seed}, checkpoint)
    bar.close()
    save_whole(model.state_dict(), folder / "model_state_dict.pt")
    return pd.DataFrame(log, columns=["step", "stage", "loss", "recall"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="course.py train", description="Train the course model.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="discard an interrupted run")
    args = parser.parse_args()
    if args.fresh:
        (TRAINING_DIR / "checkpoint.pt").unlink(missing_ok=True)
    try:
        log = train(TRAINING_DIR, args.seed)
    except KeyboardInterrupt:
        raise SystemExit(
            "\nStopped. The same command goes on; at most 100 steps are repeated."
        ) from None
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    log.to_csv(TRAINING_DIR / "training_log.csv", index=False)
    plots.training(log).savefig(TRAINING_DIR / "training.png", dpi=120)
    print(f"Weights, log and plot are in {TRAINING_DIR.name}/. To use them in the course:")
    print(f"copy {TRAINING_DIR.name}/{WEIGHTS.name} to {WEIGHTS.name}, training_log.csv to data/,")
    print("and make the test cases anew: python tests/support/make_data.py")


if __name__ == "__main__":
    main()
