"""Honest timing of generation, with and without a cache, and what it should cost (notebook 06).

All times are in seconds, read from PyTorch's benchmark clock, which waits for the device to finish.
What is compared is interleaved: round after round, every contender runs once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer, timer
from tqdm import tqdm

from .counting import Asked
from .generation import stream
from .kv_cache import GrowingCache, PreallocatedCache

LENGTHS = (10, 50, 100, 500, 1000)
ROUNDS = (1000, 500, 500)  # tokens of each round of the sweep: the last half is slow, and run once
NO_CACHE, GROWING, PREALLOCATED = "no cache", "growing cache", "preallocated cache"
CACHES = {NO_CACHE: None, GROWING: GrowingCache, PREALLOCATED: PreallocatedCache}
OWN_CACHE = "the model's own cache"
Measured = TypeVar("Measured")
ATTEMPTS = 3
BUSY = (
    "Measured {attempts} times, and each time: {problem} Other programs may have been in the way: "
    "close them and run this cell again. If it fails on a quiet machine too, it is not the machine."
)


def measure_until(
    measure: Callable[[], Measured], check: Callable[[Measured], object], attempts: int = ATTEMPTS
) -> Measured:
    """The first measurement that passes `check`, of up to `attempts`.

    For relations of times that must hold, but not in every measurement: other programs disturb a
    clock. Raises AssertionError, with what `check` raised last, if none passes.
    """
    for _ in range(attempts):
        measured = measure()
        try:
            check(measured)
            return measured
        except AssertionError as error:
            problem = str(error)
    raise AssertionError(BUSY.format(attempts=attempts, problem=problem))


def generation(
    model: nn.Module, prompt: Tensor, num_tokens: int, contender: str
) -> Iterator[Tensor]:
    """The tokens of a greedy generation after a `prompt` (1, T).

    `contender` is one of `CACHES`, or `OWN_CACHE` for any model with the course's interface.
    Raises ValueError for another.
    """
    if contender not in (*CACHES, OWN_CACHE):
        known = ", ".join(map(repr, (*CACHES, OWN_CACHE)))
        raise ValueError(f"contender={contender!r}: choose one of {known}.")
    options = {"use_cache": contender != NO_CACHE}
    if contender in (GROWING, PREALLOCATED):
        options["past_kv"] = CACHES[contender](model, prompt.size(0))
    return stream(model, prompt, num_tokens, temperature=0, **options)


def token_times(model: nn.Module, prompt: Tensor, num_tokens: int, contender: str) -> list[float]:
    """Seconds from the start of a `generation` until each of its tokens was there.

    The first entry is the prefill (the time to the first token).
    """
    times = []
    start = timer()
    for _ in generation(model, prompt, num_tokens, contender):
        times.append(timer() - start)
    return times


def token_counts(
    model: nn.Module,
    prompt: Tensor,
    num_tokens: int,
    contenders: Sequence[str] = tuple(CACHES),
) -> pd.DataFrame:
    """What each token of the `generation` that `token_times` times asks PyTorch for.

    Returns one row per token: contender, tokens, operations, copied (bytes; see `Asked`). Counts
    are the same on every machine.
    """
    rows = []
    for contender in contenders:
        tokens = generation(model, prompt, num_tokens, contender)
        for n in range(1, num_tokens + 1):
            with Asked() as asked:
                next(tokens)
            rows.append((contender, n, asked.operations, asked.copied))
    return pd.DataFrame(rows, columns=["contender", "tokens", "operations", "copied"])


def sweep(
    model: nn.Module,
    prompt: Tensor,
    rounds: Sequence[int] = ROUNDS,
    contenders: Sequence[str] = tuple(CACHES),
    run: Callable[..., list[float]] = token_times,
    progress: bool = False,
) -> pd.DataFrame:
    """Time interleaved generations: in each round, of so many tokens, every contender runs once.

    A short generation that is not timed goes before each, so that no contender's first tokens pay
    for what the one before it left behind.
    Returns one row per token: contender, round, tokens (how many are there by then), total
    (seconds since the start) and step (seconds for this token alone).
    """
    frames = []
    plan = [(*each, contender) for each in enumerate(rounds) for contender in contenders]
    for r, num_tokens, contender in tqdm(plan, desc="sweep", disable=not progress):
        run(model, prompt, min(num_tokens, 20), contender)
        total = np.array(run(model, prompt, num_tokens, contender))
        step = np.diff(total, prepend=0.0)
        tokens = np.arange(1, len(total) + 1)
        columns = {"tokens": tokens, "total": total, "step": step}
        frames.append(pd.DataFrame({"contender": contender, "round": r} | columns))
    return pd.concat(frames, ignore_index=True)


def totals(times: pd.DataFrame, lengths: Iterable[int] = LENGTHS) -> pd.DataFrame:
    """Median, lowest and highest total seconds for each length (rows) and contender.

    Over the rounds that went so far.
    """
    chosen = times[times["tokens"].isin(list(lengths))]
    groups = chosen.groupby(["tokens", "contender"], sort=False)["total"]
    return groups.agg(["median", "min", "max"]).unstack("contender").swaplevel(axis=1)


def per_token(times: pd.DataFrame, window: int = 40) -> pd.DataFrame:
    """Seconds per decoded token, by position: median and quartiles over windows and rounds.

    The first token (the prefill) is left out. Returns contender, tokens (middle of the window),
    median, low, high.
    """
    decode = times[times["tokens"] > 1]
    middle = (decode["tokens"] - 1) // window * window + window // 2
    groups = decode.groupby(["contender", middle], sort=False)["step"]
    table = groups.quantile([0.25, 0.5, 0.75]).unstack()
    table.columns = ["low", "median", "high"]
    return table.reset_index()


def prefill_times(
    model: nn.Module, lengths: Iterable[int] = LENGTHS, rounds: int = 9
) -> pd.DataFrame:
    """Seconds to run a prompt of each length once: into a preallocated cache, and without one.

    Interleaved rounds of `torch.utils.benchmark.Timer`. Returns contender, tokens, median, low,
    high (quartiles).
    """
    generator = torch.Generator().manual_seed(0)
    tasks = {}
    for length in lengths:
        ids = torch.randint(model.output_projection.out_features, (1, length), generator=generator)
        for contender, use_cache in ((NO_CACHE, False), (PREALLOCATED, True)):
            task = {"model": model, "ids": ids.to(model.device), "use_cache": use_cache}
            tasks[contender, length] = Timer(
                "model(ids, use_cache=use_cache)", globals=task, num_threads=torch.get_num_threads()
            )
    seconds = {key: [] for key in tasks}
    with torch.no_grad():
        for _ in range(rounds):
            for key, task in tasks.items():
                seconds[key].append(task.timeit(1).median)
    rows = [
        (contender, length, *np.quantile(values, [0.5, 0.25, 0.75]))
        for (contender, length), values in seconds.items()
    ]
    return pd.DataFrame(rows, columns=["contender", "tokens", "median", "low", "high"])


@torch.no_grad()
def parts(model: nn.Module, position: int, rounds: int = 40) -> pd.DataFrame:
    """Seconds of each part of a pass over one token, with a cache that holds `position` tokens.

    In turns with each part, the calls that it makes are made once more, one after the other,
    without the model around them. Returns one row per part and round: part, round, calls (their
    number), whole (seconds of the part), direct (seconds of the calls).
    """
    cache = PreallocatedCache(model, 1)
    ids = torch.zeros(1, position, dtype=torch.long, device=model.device)
    model(ids, past_kv=cache, use_cache=True)
    tasks = {"embeddings": lambda x: model.embed(ids[:, :1], position)}
    for i, layer in enumerate(model.layers):
        tasks[f"layer {i + 1}"] = lambda x, i=i, layer=layer: layer(x, cache, i)
    tasks["output"] = lambda x: model.output_projection(model.norm(x))
    asked, x = {}, None
    for name, task in tasks.items():
        with Asked() as asked[name]:
            x = task(x)
    rows = []
    for r in range(-1, rounds):  # round -1 is the warm-up
        cache.truncate(position)
        for name, task in tasks.items():
            start = timer()
            x = task(x)
            middle = timer()
            asked[name].again()
            rows.append((name, r, len(asked[name].calls), middle - start, timer() - middle))
    table = pd.DataFrame(rows, columns=["part", "round", "calls", "whole", "direct"])
    return table[table["round"] >= 0]


def undisturbed(parts: pd.DataFrame) -> pd.DataFrame:
    """The tenth percentile of the rounds of `parts`, which few interruptions reach; and the ratio.

    Returns one row per part, in order: calls, whole, direct (seconds), ratio (whole over direct).
    """
    columns = ["calls", "whole", "direct"]
    table = parts.groupby("part", sort=False)[columns].quantile(0.1)
    return table.assign(ratio=table["whole"] / table["direct"])


def operations(model: nn.Module, new_tokens: int, all_tokens: int) -> int:
    """Multiplications and additions in the matrix products of one forward pass.

    `new_tokens` go through the model, each attends to `all_tokens` positions. Without a cache both
    are the length of the sequence; with one, `new_tokens` is 1.
    Source: Kaplan et al., "Scaling Laws for Neural Language Models", 2020, table 1.
    """
    d_model = model.output_projection.in_features
    matrices = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear)
    )
    attention = 2 * model.num_layers * d_model * all_tokens
    return 2 * new_tokens * (matrices + attention)


def cost_model(model: nn.Module, steps: pd.DataFrame) -> tuple[float, float]:
    """Fit seconds = overhead + operations / rate to the *uncached* steps of `per_token`.

    Least squares of the relative error, so that short texts count as much as long ones. Returns
    overhead in seconds per forward pass, and rate in operations per second. What it says about
    cached steps is then a prediction.
    """
    uncached = steps[steps["contender"] == NO_CACHE]
    work = np.array([operations(model, n, n) for n in uncached["tokens"]], dtype=float)
    seconds = uncached["median"]
    seconds_per_operation, overhead = np.polyfit(work, seconds, 1, w=1 / seconds)
    return float(overhead), float(1 / seconds_per_operation)


def growth_exponent(
    tokens: Sequence[float], seconds: Sequence[float], seed: int = 0
) -> tuple[float, float, float]:
    """Fit seconds = c * tokens ** exponent; return the exponent and its 95 % interval.

    A straight line through the logarithms; the interval is a bootstrap over the points.
    Raises ValueError for fewer than three of them.
    """
    if len(tokens) < 3:
        raise ValueError(f"A growth exponent needs at least 3 points, and {len(tokens)} came.")
    x, y = np.log(np.asarray(tokens, dtype=float)), np.log(np.asarray(seconds, dtype=float))
    rng = np.random.default_rng(seed)
    slopes = []
    while len(slopes) < 1000:
        chosen = rng.integers(len(x), size=len(x))
        if len(set(chosen)) > 2:
            slopes.append(np.polyfit(x[chosen], y[chosen], 1)[0])
    low, high = np.quantile(slopes, [0.025, 0.975])
    return float(np.polyfit(x, y, 1)[0]), float(low), float(high)


def misfit(tokens: Sequence[float], seconds: Sequence[float], law: str) -> float:
    """How far times lie from the best curve of a `law`: root mean square of relative errors.

    "power" is c * tokens ** p; "exponential" is c * exp(tokens / scale).
    """
    if law not in ("power", "exponential"):
        raise ValueError(f"law={law!r}: choose power or exponential.")
    x, y = np.asarray(tokens, dtype=float), np.log(np.asarray(seconds, dtype=float))
    x = np.log(x) if law == "power" else x
    return float(np.sqrt(np.mean((y - np.polyval(np.polyfit(x, y, 1), x)) ** 2)))


def speed_up(times: pd.DataFrame, length: int, contender: str = PREALLOCATED) -> float:
    """How many times faster `contender` generates `length` tokens: a ratio of medians."""
    table = totals(times, [length])
    return float(table.loc[length, (NO_CACHE, "median")] / table.loc[length, (contender, "median")])


def ratio_interval(
    numerator: Sequence[float], denominator: Sequence[float], seed: int = 0
) -> tuple[float, float, float]:
    """Median of the ratios of interleaved pairs of times, and its 95 % interval (bootstrap)."""
    ratios = np.asarray(numerator, dtype=float) / np.asarray(denominator, dtype=float)
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(ratios, size=(1000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)
