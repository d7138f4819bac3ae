"""Train the attention of the pooled models a little (chapter 09).

`python -m course_utils.going_further.smaller.uptrain` makes data/grouped_heads.pt from seed 0: for
2 and for 1 key/value heads the attention's matrices in float16, nothing else being trained (a
quarter of an hour on two cores). Every example is drawn from its step's number, so that an
interrupted run goes on as if nothing had happened.
Source: Ainslie et al., "GQA", 2023, section 2.1 ("uptraining").
"""

import argparse
import random
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ...train import TRAINING_DIR, Stage, batch, loss_and_recall, save_whole
from ...transformer import load_model
from .grouped_heads import UPTRAINED, GroupedTransformer, grouped
from .smaller_caches import causal_rule

STAGES = (
    Stage("stories of 256", 300, 256, 12, (0.0, 0.6), gap=(0.2, 0.8), with_gap=0.6),
    Stage("stories of 1024", 140, 1024, 3, (0.3, 0.9), gap=(0.1, 0.9), with_gap=0.6),
)
ROUNDS = {2: ((120, 20), (0, 60)), 1: ((300, 40), (0, 100))}
RATE = 1e-3
WARM_UP = 20


def trained_part(model: GroupedTransformer) -> dict[str, Tensor]:
    """The parameters that are trained, by name: the four matrices of every attention layer."""
    return {name: p for name, p in model.named_parameters() if ".attention." in name}


def plan(num_kv_heads: int) -> list[tuple[Stage, float]]:
    """Stage and learning rate of each step: in each round a short warm-up, and down to 0."""
    steps = []
    for counts in ROUNDS[num_kv_heads]:
        stages = [stage for stage, n in zip(STAGES, counts, strict=True) for _ in range(n)]
        for i, stage in enumerate(stages):
            rate = RATE * min(1.0, (i + 1) / WARM_UP) * (1 - i / len(stages))
            steps.append((stage, rate))
    return steps


def uptrain(num_kv_heads: int, checkpoint: Path, seed: int = 0) -> dict[str, Tensor]:
    """Pool and train, going on from `checkpoint` if it is there; `trained_part` in float16."""
    model = grouped(load_model(device="cpu"), num_kv_heads).train()
    for layer in model.layers:
        layer.attention.attend = causal_rule
    model.requires_grad_(False)
    part = trained_part(model)
    for parameter in part.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(part.values(), betas=(0.9, 0.99), weight_decay=0.0)
    steps, done = plan(num_kv_heads), 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["part"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["done"]
    bar = tqdm(total=len(steps), initial=done, desc=f"{num_kv_heads} key/value heads")
    while done < len(steps):
        rng, (stage, rate) = random.Random(f"uptrain {seed} {done}"), steps[done]
        ids, weights = batch(stage, rng, 0.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        start = rng.randint(0, model.max_seq_len - stage.length)
        loss, recall = loss_and_recall(model, ids, weights, start)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(part.values(), 1.0)
        optimizer.step()
        done += 1
        bar.update()
        bar.set_postfix_str(f"{stage.name}: loss {loss.item():.3f}, recall {recall:.3f}")
        if done % 20 == 0 or done == len(steps):
            state = {"part": part, "optimizer": optimizer.state_dict(), "done": done}
            save_whole(state, checkpoint)
    bar.close()
    return {name: parameter.detach().half() for name, parameter in part.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make data/grouped_heads.pt.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=UPTRAINED)
    parser.add_argument("--fresh", action="store_true", help="discard an interrupted run")
    args = parser.parse_args()
    found = {}
    for num_kv_heads in ROUNDS:
        checkpoint = TRAINING_DIR / f"uptrain_{num_kv_heads}_seed_{args.seed}.pt"
        if args.fresh:
            checkpoint.unlink(missing_ok=True)
        found[num_kv_heads] = uptrain(num_kv_heads, checkpoint, args.seed)
    save_whole(found, args.out)


if __name__ == "__main__":
    main()
