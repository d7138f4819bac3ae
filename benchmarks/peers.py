"""The course's decoders beside the engines that people use: same weights, one run, in turns.

    pip install -c constraints.txt torch==2.13.0 -e ".[peers]"
    python benchmarks/peers.py [--quick] [--shapes S M L] [--threads 2] [--rounds 5] [--out PREFIX]

Writes PREFIX.csv (one row per contender, shape, threads and prompt length), PREFIX.png, and prints
the table. The whole run takes 25 minutes to an hour on two cores, `--quick` (S and M, two lengths)
under three.

What is timed, the same way for all: a greedy `generate` of 1 token after T (prefill), of 65 tokens
after T (L: of 25), and of 1 token again; of the two prefills the faster one counts. The difference,
divided by 64 (24), is the time per decoded token. All are in float32, all have the same number of
threads, bound to cores (OMP_PROC_BIND). In a round every contender runs once per length, each in a
process of its own, another one first each time, after a pause in which the threads of the one
before it go to sleep (CTranslate2's stay awake for 0.2 s) and a short call that wakes its own. One
round before all is not counted. S, which is over soon, has twice as many. A ratio is taken within
each round; the table has medians, the CSV quartiles too. `ids` says whether all the tokens are the
plain model's.

The limit is the time in which this machine, with these threads, reads what a token must read: all
weights, once, and the keys and values of T positions. It is measured in the same rounds, in the
fastest of several ways of moving as many bytes as the weights have (`roofline.readers`): small
weights stay in the processor's cache, large ones come from memory, so each shape has a bandwidth of
its own: that of its fastest round. The share of the limit, though, is a ratio, and taken within
each round like the others. Nobody can be faster than the limit: where a share is above 1.02, the
measurement of that shape has failed and is repeated, up to three times in all.

Peak memory is that of one generation (Linux only), less what the process had after importing. A
contender that has not what it needs, an engine or a compiler, is named and left out.
"""

import argparse
import contextlib
import importlib.util
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

# Before this file's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engines import (
    BY_COLUMNS,
    COMPILED,
    CTRANSLATE2,
    FAIR,
    FAST,
    MEMORY,
    NO_CACHE,
    ONNXRUNTIME,
    PLAIN,
    READERS,
    SHAPES,
    TRANSFORMERS,
    Contender,
    course_model,
)
from course_utils.benchmark import ATTEMPTS
from course_utils.going_further.speed.compiled_decode import has_compiler
from course_utils.going_further.speed.figures import peers
from course_utils.going_further.speed.roofline import cache_bytes, weight_bytes
from course_utils.plots import png

LENGTHS = (10, 50, 100, 500, 1000)
DECODED = {"S": 64, "M": 64, "L": 24}
PAUSE = 0.3  # seconds, in which the threads of the one before go to sleep
CACHED = (PLAIN, BY_COLUMNS, FAST, COMPILED, TRANSFORMERS, CTRANSLATE2, ONNXRUNTIME)
ENGINES = (CTRANSLATE2, ONNXRUNTIME)  # the two that are engines and nothing else
OURS = (PLAIN, BY_COLUMNS, FAST, COMPILED)
MOST = 1.02  # no share of the limit can be larger
UNCACHED = (NO_CACHE, FAIR)
SHOWN = (
    *("shape", "threads", "tokens", "contender", "decode_ms", "limit_ms", "share_of_limit"),
    *(f"decode_vs_{peer}" for peer in (TRANSFORMERS, *ENGINES)),
    *("prefill_ms", "peak_MB", "ids"),
)


def lengths_for(shape: str, quick: bool) -> list[int]:
    """Prompt lengths that leave room for what is decoded."""
    room = SHAPES[shape][4] - DECODED[shape] - 1
    lengths = (10, 100) if quick else LENGTHS
    return [length if length <= room else 900 for length in lengths]


def contenders_for(shape: str, quick: bool) -> list[str]:
    """Those that can run here; the two without a cache only where they take seconds."""
    names = [*CACHED, *(UNCACHED if shape == "S" and not quick else ()), MEMORY]
    missing = {
        TRANSFORMERS: importlib.util.find_spec("transformers") is None,
        CTRANSLATE2: importlib.util.find_spec("ctranslate2") is None,
        ONNXRUNTIME: not all(importlib.util.find_spec(n) for n in ("onnx", "onnxruntime")),
        COMPILED: not has_compiler(),
    }
    for name in [name for name in names if missing.get(name)]:
        need = "a C++ compiler" if name == COMPILED else "the extra `peers`"
        print(f"{name!r} is left out: it needs {need}.")
        names.remove(name)
    return names


@contextlib.contextmanager
def running(names: list[str], shape: str, threads: int) -> Iterator[list[Contender]]:
    """The contenders' processes, all with their engine made."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Contender(name, shape, threads)) for name in names]


def prompt_of(shape: str, length: int) -> list[int]:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(SHAPES[shape][0], (length,), generator=generator).tolist()


def once(contender: Contender, prompt: list[int], steps: int) -> dict[str, object]:
    """One measurement: prefill and decode, in seconds, the ids and the peak of memory."""
    time.sleep(PAUSE)
    if contender.name == MEMORY:
        ways = [contender.run([way], steps)["seconds"] for way in range(READERS)]
        return {"decode": min(ways) / steps}
    steps = 2 if contender.name in UNCACHED else steps
    first, all_, again = (contender.run(prompt, n) for n in (1, 1 + steps, 1))
    prefill = min(first["seconds"], again["seconds"])
    return {
        "prefill": prefill,
        "decode": (all_["seconds"] - prefill) / steps,
        "ids": tuple(all_["ids"]),
        "peak": all_["peak"],
    }


def measure(shape: str, threads: int, rounds: int, quick: bool) -> pd.DataFrame:
    """One row per measurement: shape, threads, tokens, contender, round, and what `once` gives.

    Measured up to three times, while somebody is faster than the limit.
    """
    with running(contenders_for(shape, quick), shape, threads) as contenders:
        for attempt in range(1, ATTEMPTS + 1):
            times = in_rounds(contenders, shape, threads, rounds, quick)
            largest = summary(times)["share_of_limit"].max()
            if largest <= MOST:
                break
            print(f"Measurement {attempt}: {largest:.2f} of the limit was reached, so it is none.")
    return times


def in_rounds(
    contenders: list[Contender], shape: str, threads: int, rounds: int, quick: bool
) -> pd.DataFrame:
    """The contenders in turns, at each length, in a round that is not counted and in `rounds`."""
    rows = []
    making = {c.name: c.ready["seconds"] for c in contenders}
    plan = [(r, length) for r in range(-1, rounds) for length in lengths_for(shape, quick)]
    for r, length in tqdm(plan, desc=f"{shape}, {threads} threads", disable=None):
        first = r % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            row = once(contender, prompt_of(shape, length), DECODED[shape])
            place = {"shape": shape, "threads": threads, "tokens": length, "round": r}
            named = {"contender": contender.name, "making": making[contender.name]}
            rows.append(place | named | row)
    times = pd.DataFrame(rows)
    return times[times["round"] >= 0].reset_index(drop=True)


def summary(times: pd.DataFrame) -> pd.DataFrame:
    """One row per shape, threads, tokens and contender: what the CSV holds."""
    place = ["shape", "threads", "tokens"]
    rows = []
    read = times[times["contender"] == MEMORY].groupby(place[:2])["decode"].min()
    for key, group in times.groupby(place, sort=False):
        by_round = group.pivot(index="round", columns="contender", values="decode")
        prefills = group.pivot(index="round", columns="contender", values="prefill")
        model = course_model(key[0])
        times_the_weights = 1 + cache_bytes(model, key[2]) / weight_bytes(model)
        limit = by_round[MEMORY] * times_the_weights
        ids = group.set_index("contender").groupby(level=0)["ids"].first()
        for name in [name for name in by_round if name != MEMORY]:
            decode, prefill = by_round[name] * 1e3, prefills[name] * 1e3
            one = group[group["contender"] == name]
            row = dict(zip(place, key, strict=True)) | {"contender": name}
            row |= {"decode_ms": decode.median(), "prefill_ms": prefill.median()}
            row |= {f"decode_q{q}": decode.quantile(q / 100) for q in (25, 75)}
            row |= {f"prefill_q{q}": prefill.quantile(q / 100) for q in (25, 75)}
            row["limit_ms"] = read[key[:2]] * times_the_weights * 1e3
            row["share_of_limit"] = (limit / by_round[name]).median()
            for peer in (TRANSFORMERS, *ENGINES):
                if peer in by_round:
                    row[f"decode_vs_{peer}"] = (by_round[peer] / by_round[name]).median()
                    row[f"prefill_vs_{peer}"] = (prefills[peer] / prefills[name]).median()
            row |= {"ids": agreement(ids[name], ids[PLAIN]), "peak_MB": one["peak"].max() / 1e6}
            row |= {"making_s": one["making"].iloc[0], "rounds": len(by_round)}
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(
        bandwidth_GBs=table.apply(bandwidth, axis=1), machine=machine(), versions=versions()
    )


def bandwidth(row: pd.Series) -> float:
    model = course_model(row["shape"])
    return (weight_bytes(model) + cache_bytes(model, row["tokens"])) / row["limit_ms"] / 1e6


def agreement(ids: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """ "same", or the first decoded token in which they differ."""
    pairs = enumerate(zip(ids, expected, strict=False), start=1)
    return next((f"differ from {n} on" for n, (a, b) in pairs if a != b), "same")


def machine() -> str:
    """The processor, as the system calls it, and how many cores there are."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} cores, {platform.system()}"


def versions() -> str:
    found = []
    for package in ("torch", "transformers", "ctranslate2", "onnxruntime"):
        if importlib.util.find_spec(package):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="S and M, two lengths, two rounds")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    given = parser.parse_args()
    rounds = given.rounds or (2 if given.quick else 5)
    runs = [(shape, given.threads) for shape in given.shapes or ("SM" if given.quick else "SML")]
    if ("S", given.threads) in runs and given.threads > 1 and not given.quick:
        runs.append(("S", 1))
    times = [
        measure(*run, rounds * (2 if run[0] == "S" and not given.quick else 1), given.quick)
        for run in runs
    ]
    table = summary(pd.concat(times, ignore_index=True))
    table.round(4).to_csv(given.out.with_suffix(".csv"), index=False)
    given.out.with_suffix(".png").write_bytes(png(peers(table)))
    print(table[[name for name in SHOWN if name in table]].round(2).to_string(index=False))
    print(f"\n{table['machine'][0]}; {table['versions'][0]}")
    return int(table["share_of_limit"].max() > MOST)


if __name__ == "__main__":
    sys.exit(main())
