"""What the cells of the latency sweep call: what any processor's times must show (notebook 06).

Of times they ask only what follows from the algorithm, with a wide margin, as ratios within one
run: `benchmark.measure_until` measures again if other programs were in the way.
"""

import numpy as np
import pandas as pd
from torch import nn

from ..benchmark import (
    CACHES,
    GROWING,
    LENGTHS,
    NO_CACHE,
    PREALLOCATED,
    operations,
    per_token,
    speed_up,
    totals,
    undisturbed,
)


def slope(steps: pd.DataFrame, contender: str) -> float:
    """Seconds by which a token gets slower per token before it: a line through the medians."""
    part = steps[steps["contender"] == contender]
    return float(np.polyfit(part["tokens"], part["median"], 1)[0])


def _caches(table: pd.DataFrame) -> list[str]:
    return [name for name in CACHES if name != NO_CACHE and name in set(table["contender"])]


def check_counts(counts: pd.DataFrame, model: nn.Module, prompt_len: int) -> None:
    """Raise AssertionError unless every contender asks for what its name says, and no more.

    `counts` is from `benchmark.token_counts`, after a prompt of `prompt_len` tokens. Without a
    cache each token runs all tokens again; with one only the new ones. The growing cache writes all
    that it holds for every token, the preallocated one only what is new.
    """
    position_bytes = 2 * model.num_layers * model.token_embedding.weight[0].nbytes
    for row in counts.itertuples():
        end = prompt_len + row.tokens - 1
        new = end if row.contender == NO_CACHE or row.tokens == 1 else 1
        written = {GROWING: end * position_bytes, PREALLOCATED: new * position_bytes}
        asked = {
            "multiplications and additions": (row.operations, operations(model, new, end)),
            "bytes copied": (row.copied, written.get(row.contender, 0)),
        }
        for what, (found, expected) in asked.items():
            if found != expected:
                raise AssertionError(
                    f"{row.contender}, token {row.tokens}: {found:,} {what}, expected {expected:,} "
                    f"for {new} new of {end} tokens. Does the model feed only the new token, is "
                    "use_cache handed on, and is it that kind of cache?"
                )


def check_parts(parts: pd.DataFrame, factor: float = 1.6) -> None:
    """Raise AssertionError unless each layer, and the pass, takes less than `factor` times as long
    as the calls that it makes. `parts` is from `benchmark.parts`.
    """
    table = undisturbed(parts)
    judged = table.filter(like="layer", axis=0)[["whole", "direct"]]
    judged.loc["the whole pass"] = table[["whole", "direct"]].sum()
    for part, whole, direct in judged.itertuples():
        if (ratio := whole / direct) >= factor:
            raise AssertionError(
                f"For one token, {part} takes {1e3 * whole:.2f} ms; the calls that it makes take "
                f"{1e3 * direct:.2f} ms, one after the other. That is {ratio:.1f} times as long; "
                f"expected less than {factor:g} times. What else does it do or wait for?"
            )


def check_cached_steps_grow_slowly(steps: pd.DataFrame, factor: float = 2.0) -> None:
    """Raise AssertionError unless, with each cache, time per token grows `factor` times slower.

    `steps` is from `benchmark.per_token`. In operations it grows hundreds of times slower.
    """
    uncached = slope(steps, NO_CACHE)
    for contender in _caches(steps):
        cached = slope(steps, contender)
        if not (uncached > 0 and cached * factor < uncached):
            raise AssertionError(
                f"With the {contender}, a token gets {1e6 * cached:.2f} µs slower per token before "
                f"it; without a cache {1e6 * uncached:.2f} µs. Without one it should be at "
                f"least {factor:g} times as much. Does the model feed only the new "
                "token, and is use_cache handed on?"
            )


def check_speed_up_rises(
    times: pd.DataFrame, short: int = 50, long: int = 1000, least: float = 1.5
) -> None:
    """Raise AssertionError unless each cache gains at least `least` times at `long` tokens, and
    more there than at `short`. `times` is from `benchmark.sweep`.
    """
    for contender in _caches(times):
        at_short, at_long = (speed_up(times, n, contender) for n in (short, long))
        if not (at_long > at_short and at_long > least):
            raise AssertionError(
                f"The {contender} makes {long} tokens {at_long:.2f} times faster and {short} "
                f"tokens {at_short:.2f} times. Expected at least {least:g} times at {long} tokens, "
                f"and more than at {short}. Is the cache used at all?"
            )


def check_total_is_polynomial(times: pd.DataFrame, length: int = 1000) -> None:
    """Raise AssertionError unless time without a cache grows like a power of the length.

    Twice the text takes at least 2 times as long (every token costs something) and at most 8 times
    (as many passes as tokens, pairs of positions in each): below 1.5 or above 10 something else
    was timed. An exponential's growth is squared with each doubling; a power's is not.
    `times` is from `benchmark.sweep`; each ratio is one of medians over the same rounds.
    """
    table = times[times["contender"] == NO_CACHE].pivot(
        index="round", columns="tokens", values="total"
    )
    before, last = ((table[n] / table[n // 2]).dropna().median() for n in (length // 2, length))
    if not 1.5 < last < 10:
        raise AssertionError(
            f"Without a cache, {length} tokens take {last:.1f} times as long as half of them; "
            "expected between 2 and 8 times. Was anything else timed with it?"
        )
    if not last < 0.8 * before**2:
        raise AssertionError(
            f"Without a cache, time grows {before:.1f} times up to {length // 2} tokens, and "
            f"{last:.1f} times to {length}: squared with each doubling, like an exponential. "
            "Was anything else timed with it?"
        )


def check_all_lengths_timed(times: pd.DataFrame, lengths: tuple[int, ...]) -> None:
    """Raise AssertionError unless every contender has a positive total at every length."""
    table = totals(times, lengths)
    if list(table.index) != list(lengths) or not (table > 0).all(axis=None):
        raise AssertionError(f"Timings are missing: wanted {lengths}, found {list(table.index)}.")


def check_sweep(times: pd.DataFrame) -> None:
    """Raise AssertionError unless the times of a sweep are what any processor must show.

    Every length is timed; a token gets slower by far less with a cache; the gain rises with the
    length; and the total without a cache grows like a power.
    """
    check_all_lengths_timed(times, LENGTHS)
    check_cached_steps_grow_slowly(per_token(times))
    check_speed_up_rises(times)
    check_total_is_polynomial(times)
