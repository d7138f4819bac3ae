"""Every figure of the course, drawn from made-up data of the shapes and sizes of the real ones."""

import numpy as np
import pandas as pd
import torch
from helpers import small_model

from course_utils import plots
from course_utils.benchmark import (
    CACHES,
    GROWING,
    LENGTHS,
    NO_CACHE,
    PREALLOCATED,
    ROUNDS,
    per_token,
)
from course_utils.going_further import (
    plots_06,
    plots_07,
    plots_08,
    plots_09,
    plots_10,
    plots_11,
)
from course_utils.going_further.serving import Request, StepTimes
from course_utils.products import ALL
from course_utils.transformer import ROOT

WORDS = "<story> Mia put the red key in the wooden box . Tom".split()
FITTED = (1.7e-3, 5e9)
RNG = np.random.default_rng(0)


def sweep(rounds: int = len(ROUNDS), growing: float = 1.04) -> pd.DataFrame:
    """As `benchmark.sweep` returns it: a cached token takes a millisecond, the others ever more."""
    n = np.arange(1, 1001)
    costs = {
        NO_CACHE: 1e-3 + 7e-6 * n + 2e-8 * n**2,
        GROWING: growing * (1e-3 + 1e-7 * n),
        PREALLOCATED: 1e-3 + 1e-8 * n,
    }
    tables = []
    for name in CACHES:
        for r in range(rounds):
            step = costs[name] * (1 + 0.05 * r) * RNG.uniform(0.95, 1.1, n.size)
            row = {"contender": name, "round": r, "tokens": n, "step": step}
            tables.append(pd.DataFrame(row | {"total": step.cumsum()}))
    whole = pd.concat(tables, ignore_index=True)
    return whole[whole["tokens"] <= whole["round"].map(ROUNDS.__getitem__)]


def quartile_table(lengths: tuple, medians: list[float], **more: object) -> pd.DataFrame:
    m = np.array(medians)
    table = {"tokens": lengths, "median": m, "low": 0.9 * m, "high": 1.2 * m}
    return pd.DataFrame(table | more)


def rounds_of(medians: dict, rounds: int = 9) -> pd.DataFrame:
    """A row per round, as `roofline.in_turns` returns it."""
    return pd.DataFrame({k: m * RNG.uniform(0.9, 1.3, rounds) for k, m in medians.items()})


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


BEGINNINGS = ["Mia", "Tom", "The", "Where", "Later", "Soon", "Then", "After", "They", "In"]


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
    words = ["Mia", "put", "the", "red", "key", "in"]
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
    names = [f"rollback_keeps_position_{i}" for i in range(32)]
    seen = RNG.uniform(size=(32, len(columns))) < 0.5
    return plots.caught(pd.DataFrame(seen, index=names, columns=columns))


def looks():
    rows = [torch.softmax(torch.randn(max(6, n)), 0) for n in range(1, 12)]
    return plots.looks({"right": rows, "patient": [torch.cat([r, r]) for r in rows]}, WORDS[:11], 6)


def bandwidth():
    sizes = [2**k for k in range(18, 28)]
    one = [47, 57, 58, 69, 76, 78, 54, 24, 21, 22]
    read = pd.DataFrame({"1 thread": one, "2 threads": [*one[:8], 29, 31]}, index=sizes) * 1e9
    return plots_06.bandwidth(read, {"small": 3_700_000, "wide": 72_000_000})


def products(spread: bool = True):
    columns = {
        "one matrix, again and again": [16, 19, 15, 18, 23, 10, 13, 15],
        "eighty in turn": [6, 14, 6, 13, 18, 11, 12, 14],
    }
    rates = 1e9 * pd.DataFrame(columns, index=list(ALL))
    return plots_06.products(rates, *((0.9 * rates, 1.1 * rates) if spread else ()))


def steps(spread: bool = True):
    small = {"plain": 1.62, "fast": 0.506, "compiled": 0.112, "floor": 0.03}
    taken = {"small": small, "wide": {"plain": 12.5, "fast": 3.61, "floor": 2.24}}
    spreads = {
        model: {name: (0.9 * ms, 1.3 * ms) for name, ms in times.items() if name != "floor"}
        for model, times in taken.items()
    }
    return plots_06.steps(taken, spreads if spread else None)


def precision():
    right = {"32 bits": 0.998, "16 (bfloat16)": 0.998, "8 bits": 0.998, "2 bits": 0.0}
    ms = {"32 bits": 2.2, "16 (bfloat16)": 2.8, "8, made 32 again": 43, "8, made 32 in place": 11}
    ms["8, as they are"] = 0.86
    megabytes = dict(zip(ms, (51, 26, 13, 13, 13), strict=True))
    return plots_06.precision(pd.Series(right), rounds_of(ms), megabytes)


def growth_06():
    lengths = np.array([64, 91, 128, 181, 256, 362, 512, 724, 1024])
    at = np.arange(64, 1025, 64)
    cached = {"course, fast": 5e-4 + 3e-7 * at, "course, compiled": 1.5e-4 + 1.5e-7 * at}
    table = pd.DataFrame(cached, index=at)
    lines = {"course, fast": (3e-7, 5e-4), "course, compiled": (1.5e-7, 1.5e-4)}
    totals = pd.Series(3e-5 * lengths**1.83, index=lengths)
    return plots_06.growth(totals, 1.83, table, lines, 0.95 * table, 1.05 * table)


def peers():
    return plots_06.peers(pd.read_csv(ROOT / "benchmarks" / "peers.csv"))


def walks():
    tiles = [slice(i, i + 3) for i in range(0, 12, 3)]
    visits = [(rows, columns) for rows in tiles for columns in tiles]
    hidden = [(r, c) for r, c in visits if c.start <= r.start]
    return plots_07.walks({"no mask": visits, "causal": hidden}, 12, "causal")


def traffic():
    sizes = pd.Index([8, 16, 32, 64, 128, 256])
    columns = {"plain": [4.6e6] * 6, "keys outside": 1.1e8 / sizes, "queries outside": 7e7 / sizes}
    counted = pd.DataFrame(columns, index=sizes)
    return plots_07.traffic(counted, counted, pd.Series(1e8 / sizes, index=sizes))


def peaks():
    lengths = pd.Index([512, 1024, 2048, 4096])
    held = {"plain": 8 * lengths**2, "in tiles": 190 * lengths}
    held["PyTorch's SDPA"] = [2.1e5, 7e5, 8.4e5, 1.1e6]
    both = {"plain": held["plain"], "in tiles, by autograd": 6 * lengths**2} | held
    return plots_07.peaks(pd.DataFrame(held, index=lengths), pd.DataFrame(both, index=lengths))


def times_07():
    ways = (plots_07.PLAIN, plots_07.SMALL, plots_07.LARGE, plots_07.SDPA)
    at = {256: (0.77, 3.3, 1.25, 0.67), 512: (2.7, 7.4, 3.5, 2), 1024: (28, 30, 16, 8.7)}
    at[2048] = (109, 110, 51, 30)
    taken = {n: rounds_of(dict(zip(ways, row, strict=True))) for n, row in at.items()}
    return plots_07.times(taken, rounds_of({1: 5.4, 2: 4.3, 4: 4.1, 8: 4, 16: 4.3}))


def by_distance(*recall: float) -> pd.DataFrame:
    return pd.DataFrame({"recall": recall}, index=[16, 32, 64, 128, 256, 512, 1024])


def windows():
    caches = {
        "whole cache": by_distance(1, 1, 1, 1, 1, 1, 0.98),
        "window 32": by_distance(0.98, 0.99, 0.01, 0.03, 0, 0.08, 0.08),
        "window 128": by_distance(0.7, 0.66, 0.65, 0.83, 0.07, 0.07, 0.07),
        "window 512": by_distance(0.95, 1, 0.98, 1, 1, 1, 0.04),
    }
    titles = ("A window in every layer", "Layer 1 keeps everything")
    return plots_08.recall_by_distance(dict.fromkeys(titles, caches), marks=(32, 128, 512))


def evictions():
    caches = {
        "whole cache": by_distance(1, 1, 1, 1, 1, 1, 0.98),
        "window": by_distance(0.7, 0.66, 0.65, 0.83, 0.07, 0.07, 0.07),
        "eviction": by_distance(1, 1, 1, 0.34, 0.4, 0.46, 0.28),
    }
    return plots_08.recall_by_distance({"128 positions": caches, "512 positions": caches})


def rounding():
    table = {
        "keys per channel, values per channel": [2.658, 2.659, 2.688],
        "keys per channel, values per token": [2.658, 2.659, 2.697],
        "keys per token, values per channel": [2.658, 2.66, 2.945],
        "keys per token, values per token": [2.658, 2.661, 2.96],
    }
    return plots_08.rounding(pd.DataFrame(table, index=[8, 4, 2]), 2.658)


def quality_against_bytes():
    window = (0.36, 0.59, 0.6, 0.51, 0.61, 0.84)
    rows = [("whole cache", "", 4096, 1, 2.66)]
    rows += [("fewer heads, pooled", f"{n} head", 1024 * n, 0.1 * n - 0.1, 5) for n in (1, 2)]
    rows += [("fewer heads, uptrained", f"{n} heads", 1024 * n, 0.95, 2.8) for n in (1, 2)]
    rows += [("window", str(4 * n), 4 * 4 * n, r, 5 - 2.3 * r) for n, r in
             zip((4, 8, 16, 32, 64, 128), window, strict=True)]  # fmt: skip
    rows += [
        ("window, layer 1 whole", str(4 * n), 1024 + 12 * n, r, 4.5 - 2 * r)
        for n, r in zip((4, 8, 16, 32, 64, 128), (0.36, 0.58, 0.69, 0.73, 0.77, 0.86), strict=True)
    ]
    rows += [("eviction", str(n), 4 * n, n**0.2 / 4 + 0.1, 3.2 - n / 1000) for n in (64, 128, 512)]
    rows += [("fewer bits", f"{b} bits", 128 * b + 130, 0.97 + b / 400, 2.7) for b in (2, 4, 8)]
    rows += [("2 heads, 4 bits", "", 330, 0.96, 2.8)]
    table = pd.DataFrame(rows, columns=["family", "label", "bytes", "recall", "perplexity"])
    return plots_08.quality_against_bytes(table.assign(bytes=1e3 * table["bytes"]))


def company():
    rows = [1, 2, 4, 8, 16, 32, 64]
    return plots_09.company(StepTimes(pd.Series({n: 1.5e-3 + 2.3e-4 * n for n in rows}), None))


def timelines():
    def asked(*times: tuple[float, float]) -> list[Request]:
        return [Request([1], 2, times=list(pair)) for pair in times]

    static = asked((0, 8), (0, 2), (0, 3), (8, 10), (8, 14), (8, 11), (14, 16))
    going = asked((0, 8), (0, 2), (0, 3), (2, 4), (3, 9), (4, 7), (7, 9))
    return plots_09.timelines({"static: 16 steps": static, "continuous: 9 steps": going}, 3)


def load():
    asked = np.array([300, 600, 950, 1300, 1600, 1900, 2300, 2700, 3100, 3500])
    tables = []
    for policy, most in (("static", 1150), ("continuous", 3000)):
        wait = 2e-3 * 3 ** (np.minimum(asked / most, 3))
        row = {"policy": policy, "asked": asked, "tokens/s": np.minimum(asked, most)}
        row |= {"latency": wait, "latency of the slowest 5 %": 4 * wait}
        tables.append(pd.DataFrame(row))
    return plots_09.load(pd.concat(tables))


def blocks():
    full, begun = ["Mia", "put", "the", "red"], ["key", "in"]
    stages = {
        "A begins": ([full, begun, [], []], ["A", "A", "", ""]),
        "B is a fork of A": ([full, begun, [], []], ["A, B", "A, B", "", ""]),
        "B goes on: a copy": ([full, begun, [*begun, "a", "box"], []], ["A, B", "A", "B", ""]),
        "A goes on: no copy": ([full, full, full, ["bag"]], ["A, B", "A", "B", "A"]),
        "A is over": ([full, [], full, []], ["B", "", "B", ""]),
    }
    return plots_09.blocks(stages, block_size=4)


def fragmentation():
    index = [1, 4, 16, 64, 256, 1280]
    wasted = {
        "wasted": [0, 0.01, 0.06, 0.21, 0.54, 0.91],
        "predicted": [0, 0.01, 0.06, 0.21, 0.52, 0.84],
    }
    return plots_09.fragmentation(pd.DataFrame(wasted | {"rows": [92, 90, 85, 68, 38, 8]}, index))


def speculation():
    drafts = {
        "prompt lookup": ((1.5, 2.1, 2.2), (1.13, 1.74, 1.75)),
        "lookup, sampled": ((1.1, 1.3, 1.2), (0.78, 1.06, 0.97)),
        "counts": ((1.5, 1.7, 1.7), (1.32, 1.37, 1.17)),
        "two layers": ((1.1, 1.1, 1.1), (0.56, 0.33, 0.23)),
    }
    rows = [
        {"draft": name, "guesses": g, "tokens": t, "faster": f}
        for name, values in drafts.items()
        for g, t, f in zip((1, 4, 8), *values, strict=True)
    ]
    return plots_09.speculation(pd.DataFrame(rows))


def widths():
    taken = {1: [1, 0.9, 0.85, 0.9, 0.9], 8: [1, 1.2, 1.3, 1.6, 2.1], 64: [1, 1.3, 1.7, 2.1, 3.2]}
    return plots_09.widths(pd.DataFrame(taken, index=[1, 2, 3, 5, 9]))


def distributions():
    names = [f"{a}{b}" for a in range(4) for b in range(4)]
    exact = np.full(16, 1 / 16)
    off = RNG.normal(0, 1e-3, 16)
    shares = {"right": exact + off, "drawn from p instead": exact + 0.05 * np.sign(off)}
    return plots_09.distributions(exact, shares | {"not drawn from q": exact + off}, names, 10_000)


def who_holds_what():
    rows = torch.arange(4).repeat_interleave(32)[:, None].expand(128, 128)
    tall = torch.arange(4).repeat_interleave(128)[:, None].expand(512, 128)
    owners = {"W_q": rows, "W_k": rows, "W_v": rows, "W_o": rows.T, "fc1": tall, "fc2": tall.T}
    return plots_10.who_holds_what(owners)


def sent_and_kept():
    ring = pd.Series({n: 2 * (n - 1) / n for n in range(1, 9)})
    kept = pd.DataFrame({"weights": [1, 0.6, 0.4], "cache": [1, 0.5, 0.25]}, index=[1, 2, 4])
    return plots_10.sent_and_kept(pd.Series({2: 1.01, 4: 1.5}), ring, kept)


def shares(spread: bool = True):
    tasks = [["prefill", "decode"], ["small", "wide"]]
    index = pd.MultiIndex.from_product(tasks, names=["task", "model"])
    columns = {"computing": [0.9, 0.5, 1.9, 0.8], "all-reduces": [4.9, 0.4, 11.3, 2]}
    times = pd.DataFrame(columns, index=index)
    whole = times.sum(axis=1)
    rounds = pd.DataFrame({"low": 0.9 * whole, "high": 1.2 * whole})
    return plots_10.shares(times, rounds if spread else None)


def merges():
    merged = np.arange(590)
    story, english = 1 + 3.3 * (merged / 590) ** 0.5, 1 + 1.05 * (merged / 590) ** 0.4
    return plots_11.merges(pd.DataFrame({"a new story": story, "English": english}), 4.36)


def gelu():
    x = torch.linspace(-5, 5, 201, dtype=torch.float64)
    gelus = (torch.nn.functional.gelu(x, approximate=how).numpy() for how in ("none", "tanh"))
    names = ("GELU with erf", "GELU with tanh", "ReLU")
    return plots_11.gelu(x.numpy(), dict(zip(names, (*gelus, x.relu().numpy()), strict=True)))


def mistakes():
    names = [f"last norm's weight left at {i}" for i in range(10)]
    size = {"fresh": 0.5, "trained": 8.0, "filled": 9.0}
    error = pd.DataFrame(size, index=names)
    error.iloc[0] = np.nan
    error.loc[names[4:6], "fresh"] = 0
    error.loc[names[8]] = (1e-5, 2e-3, 1e-3)
    tolerances = {"float64: 1e-9": 1e-9, "float32: 1e-4": 1e-4}
    return plots_11.mistakes(error, error < 1e-2, tolerances)


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
    "06 bandwidth": bandwidth,
    "06 products": products,
    "06 products, medians": lambda: products(spread=False),
    "06 steps": steps,
    "06 steps, medians": lambda: steps(spread=False),
    "06 precision": precision,
    "06 growth": growth_06,
    "06 peers": peers,
    "07 walks": walks,
    "07 traffic": traffic,
    "07 peaks": peaks,
    "07 times": times_07,
    "08 grid": lambda: plots_08.grid(torch.rand(4, 4), "Attention on the first token"),
    "08 recall_by_distance, windows": windows,
    "08 recall_by_distance, evictions": evictions,
    "08 stripes": lambda: plots_08.stripes(torch.randn(200, 32), torch.randn(200, 32)),
    "08 rounding": rounding,
    "08 quality_against_bytes": quality_against_bytes,
    "09 company": company,
    "09 timelines": timelines,
    "09 load": load,
    "09 blocks": blocks,
    "09 fragmentation": fragmentation,
    "09 speculation": speculation,
    "09 widths": widths,
    "09 distributions": distributions,
    "10 who_holds_what": who_holds_what,
    "10 sent_and_kept": sent_and_kept,
    "10 shares": shares,
    "10 shares, medians": lambda: shares(spread=False),
    "11 merges": merges,
    "11 gelu": gelu,
    "11 mistakes": mistakes,
}
