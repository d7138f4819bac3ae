"""The figures of notebooks 01 to 06, and of the training, drawn from made-up data."""

import numpy as np
import pandas as pd
import torch
from helpers import small_model

from course_utils import cache_bugs, plots
from course_utils.benchmark import GROWING, LENGTHS, NO_CACHE, PREALLOCATED, per_token

from .tables import RNG, quartile_table, sweep

WORDS = "<story> Mia put the red bell in the wooden box . Tom".split()
BEGINNINGS = ["Mia", "Tom", "The", "Where", "Later", "Soon", "Then", "After", "They", "In"]
FITTED = (1.7e-3, 5e9)


def latency_sweep(growing: float = 1.04):
    times, model = sweep(growing=growing), small_model(max_seq_len=1200)
    return plots.latency_sweep(times, per_token(times), model, FITTED, 10)


def prefill():
    table = pd.concat(
        quartile_table(LENGTHS, [1e-3 * x for x in values], contender=name)
        for name, values in (
            (NO_CACHE, (0.95, 1.5, 2.3, 11.5, 24)),
            (PREALLOCATED, (1.1, 1.7, 2.5, 12, 24.5)),
        )
    )
    return plots.prefill(table, FITTED, small_model(max_seq_len=1200))


def growth():
    lengths = np.array([64, 91, 128, 181, 256, 362, 512, 724, 1000])
    exponents = {NO_CACHE: (1.72, 1.6, 1.83), PREALLOCATED: (1.03, 1.01, 1.04)}
    return plots.growth(sweep(), lengths, exponents)


def training():
    step = np.arange(0, 1000, 50)
    log = pd.DataFrame({"step": step, "stage": np.where(step < 500, "repeats", "stories")})
    return plots.training(log.assign(loss=4 / (1 + step / 100), recall=step / 1000))


def softmax_overflow():
    x = torch.linspace(0, 120, 241)
    stable = x.sigmoid()
    naive = stable.where(x < 89, torch.nan)
    return plots.softmax_overflow(x, {"naive": naive, "stable": stable})


def attention_steps():
    tokens = ["ball", "chest", "hat", "box", "where", "ball?"]
    scores = 3.5 * torch.rand(6, 6)
    masked = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    return plots.attention_steps(tokens, scores, masked, masked.softmax(-1))


def lookup():
    words = (2 * WORDS + WORDS + WORDS)[:41]
    weights = torch.full((41,), 0.001)
    weights[30] = 0.96
    titles = ("layer 2, head 1: which thing was asked for?", "layer 4, head 3: where was it last?")
    return plots.lookup(words, dict.fromkeys(titles, weights), dict.fromkeys(titles, 30))


def parameter_shares():
    counts = {"token embedding, V·D": 32256, "position embedding, S·D": 163840}
    counts |= {"attention, L·4·D²": 262144, "feed-forward, L·(2·D·F + F + D)": 526848}
    return plots.parameter_shares(counts | {"norms, (2·L + 1)·2·D": 2304})


def stream():
    said = {"old": [0, 0, 0.07, 0.55, 1], "wooden": [0.03, 0, 0.1, 0.38, 0.001]}
    said["iron"] = [0, 0, 0.01, 0, 0]
    added = {"attention": [10.8, 25.2, 22.2, 21.1], "feed-forward": [9.8, 9, 12.8, 13.5]}
    return plots.stream(said, added)


def temperatures():
    shares = torch.tensor([0.4, 0.35, 0.16, 0.03, 0.02, 0.01, 0.01, 0.01, 0.01, 0])
    return plots.temperatures(BEGINNINGS, {t: shares**t for t in (0.5, 1.0, 2.0)})


def cuts():
    shares = torch.tensor([0.26, 0.24, 0.16, 0.07, 0.06, 0.04, 0.04, 0.03, 0.03, 0.02])
    sure = torch.tensor([1.0] + [0.0] * 9)
    names = ["old", "barrel", "wooden", "painted", "big", "bucket", "round", "dusty", "a", "b"]
    places = {"... in the old basket. ___": (BEGINNINGS, shares, 5, 9)}
    return plots.cuts(places | {"It is in the ___": (names, sure, 5, 1)})


def repeated_work():
    tokens = np.arange(1, 41)
    return plots.repeated_work(tokens, np.full(40, 1.7e6), 1.7e6 * (tokens - 1))


def step_times():
    lengths = (16, 128, 256, 384, 512, 768, 1024)
    medians = [1e-3 * x for x in (1, 3, 6, 10, 15, 29, 88)]
    counts = [1e6 * x for x in (27, 243, 553, 931, 1375, 2465, 3824)]
    return plots.step_times(quartile_table(lengths, medians, operations=counts))


def what_changes():
    moved = torch.rand(4, 11)
    return plots.what_changes({"causal mask": 0 * moved, "no mask": moved}, WORDS)


def masks():
    words = ["Mia", "put", "the", "red", "bell", "in"]
    square = torch.ones(6, 6).tril().bool()
    grids = {"all at once: square": (square, words, words)}
    grids["two new, four cached"] = (square[4:], words[4:], words)
    return plots.masks(grids | {"wrong: no offset": (square[:2], words[4:], words)})


def cache_bytes():
    tokens = [0, 200, 400, 600, 800, 1000, 1280]
    bytes_ = {GROWING: [4096 * n for n in tokens], PREALLOCATED: [4096 * 1280 for _ in tokens]}
    return plots.cache_bytes(bytes_, bytes_, tokens)


def recall_bars():
    found = {"right": 67, "positions restart": 2, "no mask offset": 0, "itself excluded": 67}
    return plots.recall_bars(found | {"keys cached, values not": 0}, 67)


def fooled_clocks():
    calls = [4.4e-3, 7.4e-3, *RNG.uniform(2.2e-3, 3e-3, 18)]
    a, busy = RNG.uniform(1, 1.3, 20), RNG.uniform(3, 6, 20)
    return plots.fooled_clocks(calls, (a, busy), (a, a[::-1]), list(RNG.uniform(1, 2.6, 40)))


def caught():
    checks = ["the assignment's check", "one by one from the start", "prompts of different length"]
    columns = [*checks, *(f"check {i}" for i in range(12)), "kv_evaluate"]
    names = list(cache_bugs.CATALOGUE)
    seen = RNG.uniform(size=(len(names), len(columns))) < 0.5
    return plots.caught(pd.DataFrame(seen, index=names, columns=columns))


def looks():
    rows = [torch.softmax(torch.randn(max(6, n)), 0) for n in range(1, 12)]
    return plots.looks({"right": rows, "patient": [torch.cat([r, r]) for r in rows]}, WORDS[:11], 6)


FIGURES = {
    "latency_sweep": latency_sweep,
    "latency_sweep, caches alike": lambda: latency_sweep(growing=1.0),
    "prefill": prefill,
    "growth": growth,
    "training": training,
    "softmax_overflow": softmax_overflow,
    "attention_steps": attention_steps,
    "all_heads": lambda: plots.all_heads(torch.rand(4, 4, 40, 40).tril()),
    "lookup": lookup,
    "parameter_shares": parameter_shares,
    "stream": stream,
    "temperatures": temperatures,
    "cuts": cuts,
    "repeated_work": repeated_work,
    "step_times": step_times,
    "what_changes": what_changes,
    "masks": masks,
    "filling": lambda: plots.filling([17, 1, 1, 1, 1, 1], (2 * WORDS)[:22]),
    "cache_bytes": cache_bytes,
    "recall_bars": recall_bars,
    "fooled_clocks": fooled_clocks,
    "gain": lambda: plots.gain(sweep(), np.array([2, 5, 10, 20, 50, 100, 200, 500, 1000])),
    "caught": caught,
    "looks": looks,
}
