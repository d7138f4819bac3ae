"""Caches in the wild: is the cache of each causal model type of `transformers` right?

    python benchmarks/wild.py [--types llama mistral ...] [--caches own static ...] [--jobs 2]
                              [--full] [--again] [--seconds 600] [--gigabytes 6]
                              [--out data/wild.csv]

Every type is made small, with drawn weights, and judged by `kv_evaluate` through the adapter of
chapter 13, by some scripts of every subject or, with `--full`, by all. Each runs in a process of
its own with limits of time and memory. What is in the table already, by the same version of
transformers, is not judged again, unless `--again`: a run that was stopped goes on. Nothing is
downloaded.

A row of the table is a type with a kind of cache. Its `verdict`:

    right           every subject that could be judged has passed
    wrong           some use of the cache gives other logits than the uncached pass; `script` is the
                    smallest that does, `error` by how much, beside the `spread` of the logits; or
                    no call with a cache works, where one without does: `why`
    unfit           the uncached pass is no measure: `why`
    no cache        the type keeps nothing
    not offered     the type cannot have this kind of cache, by what the library says: `why`
    not made        no small model could be made: `why`
    limit           it took more time or memory than allowed, or this program failed: `why`

`layers` is what the layers of the small model keep: full (keys and values of all tokens), window
(of the latest), latent (of all tokens, made from one small vector for each), indexed (with keys of
an index that chooses among them), compressed (several tokens in one), state (of a convolution or a
recurrence).
"""

import argparse
import contextlib
import math
import multiprocessing
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock

import pandas as pd
import torch
from tqdm import tqdm

from course_utils.going_further import wild
from course_utils.going_further.wild.installed import library
from course_utils.transformer import ROOT

TABLE = ROOT / "data" / "wild.csv"
COLUMNS = (
    "type class cache keeps layers verdict judged failed not_judged checks script position error "
    "spread tolerance float32 pads mistake right_if why line seconds torch transformers"
).split()
CACHES = ("own", "static")
SLOWER = 6
OUT_OF_TIME = getattr(signal, "SIGXCPU", 0)
WHOLE = {"checks": "Int64", "position": "Int64"}  # or missing
KINDS = (
    ("window", r"Sliding|sliding|chunked"),
    ("state", r"LinearAttention|linear_attention|conv|recurrent|xLSTM|\blist\b"),
    ("indexed", r"Indexed|indexed_attention|Sparse|sparse"),
    ("compressed", r"HCACache|CSACache|compressed"),
    ("full", r"(Dynamic|Static|And(?:Static)?FullAttention)Layer|full_attention|Reformer"),
)


def survey_one(name: str, cache: str, full: bool = False) -> dict[str, object]:
    """The row of a type and a kind of cache, without its seconds.

    A type that makes no cache of its own is given a dynamic one.
    """
    row = {"type": name, "cache": cache, "class": wild.causal_types().get(name)}
    row |= {"torch": torch.__version__, "transformers": library().__version__}
    try:
        model = wild.small_model(name)
    except Exception as error:
        return row | {"verdict": "not made", "why": in_a_line(error)}
    try:
        adapted = wild.Adapted(model, wild.Use(cache))
        row["keeps"] = wild.first_cache(adapted)
    except wild.NoCache as error:
        given = wild.Adapted(model, wild.Use("dynamic")) if "dynamic" in str(error) else None
        try:
            row["keeps"] = wild.first_cache(given)
        except Exception:
            return row | {"verdict": "no cache", "why": in_a_line(error)}
        adapted, cache = given, "dynamic"
    except Exception as error:
        works = works_uncached(model)
        verdict = "unfit" if not works else "wrong" if cache == "own" else "not offered"
        return row | {"verdict": verdict, "why": in_a_line(error)}
    try:
        if cache == "static" and (why := refused(adapted)):
            wild.measure(adapted)
            return row | {"keeps": None, "verdict": "not offered", "why": why}
        row["layers"] = kinds_of_layers(model, row["keeps"])
        line = f"adapted({name!r}, cache={cache!r})"
        return row | summary(wild.judge(adapted, name, cache, line=line, brief=not full))
    except wild.Unfit as error:
        return row | {"verdict": "unfit", "why": in_a_line(error)}


def refused(model: wild.Adapted) -> str:
    """Why a first token cannot go into a cache of this kind, or nothing."""
    try:
        model(torch.zeros(1, 1, dtype=torch.long), use_cache=True)
    except Exception as error:
        return in_a_line(error)
    return ""


def kinds_of_layers(model: torch.nn.Module, keeps: str) -> str:
    """What the layers keep, by the classes of the cache and what the configuration says of each."""
    config = model.config.get_text_config(decoder=True)
    said = " ".join([keeps, *(getattr(config, "layer_types", None) or [])])
    found = [kind for kind, pattern in KINDS if re.search(pattern, said)]
    if "full" in found and getattr(config, "kv_lora_rank", None):
        found[found.index("full")] = "latent"
    return " + ".join(found)


def works_uncached(model: torch.nn.Module) -> bool:
    with contextlib.suppress(Exception):
        wild.Adapted(model)(torch.zeros(1, 2, dtype=torch.long))
        return True
    return False


def summary(found: wild.Judgement) -> dict[str, object]:
    """A judgement in the columns of the table."""
    report, smallest = found.report, found.report.smallest
    subjects = {"judged": [], "failed": [], "not_judged": []}
    for result in report.others:
        place = "not_judged" if result.not_judged else "judged" if result.passed else "failed"
        why = f" ({result.not_judged})" if result.not_judged else ""
        subjects[place].append(result.name + why)
    row = {name: "; ".join(names) for name, names in subjects.items()}
    row |= {"verdict": "right" if found.all_passed else "wrong", "right_if": found.right_if}
    row |= {"checks": sum(result.checks for result in report.others)}
    row |= {"pads": found.measured.pads, "mistake": found.mistake}
    row |= {"spread": found.measured.spread, "tolerance": report.tolerance}
    row |= {"float32": " ".join(found.measured.rounded)}
    if smallest is not None:
        said = smallest.as_dict()
        row |= {"script": said["words"], "position": said["position"], "error": said["error"]}
        row |= {"line": said["line"]}
        row |= {"why": said["problem"] if said["position"] is None else ""}
    return row


def in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def limited(seconds: float, gigabytes: float) -> None:
    """Take no more processor time and memory than that, where the system can see to it."""
    with contextlib.suppress(ImportError, ValueError):
        import resource

        most, memory = math.ceil(seconds), int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def work(
    name: str, cache: str, seconds: float, gigabytes: float, full: bool, pipe: Connection
) -> None:
    """What a process does: it sends the row of a type."""
    limited(seconds, gigabytes)
    torch.set_num_threads(1)
    try:
        pipe.send(survey_one(name, cache, full))
    except Exception as error:
        pipe.send({"type": name, "cache": cache, "verdict": "limit", "why": in_a_line(error)})


def in_a_process(
    name: str, cache: str, seconds: float, gigabytes: float, full: bool = False
) -> dict[str, object]:
    """The row of a type, made by a process of its own.

    `seconds` are of the processor, so that a busy machine has the same verdicts; the clock has
    `SLOWER` times as many.
    """
    start, row = time.perf_counter(), {"type": name, "cache": cache, "verdict": "limit"}
    over = f"over {seconds:.0f} seconds"
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=work, args=(name, cache, seconds, gigabytes, full, there))
    process.start()
    there.close()
    try:
        row = here.recv() if here.poll(SLOWER * seconds) else row | {"why": over}
    except EOFError:
        process.join()
        row["why"] = f"the process ended with exit code {process.exitcode}"
        if process.exitcode == -OUT_OF_TIME:
            row["why"] = over
    process.kill()
    process.join()
    row.setdefault("transformers", library().__version__)
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def context() -> multiprocessing.context.BaseContext:
    """How processes are started: from one that has imported what all need, where there is that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(
        ["transformers.generation.utils", "course_utils.going_further.wild"]
    )
    return found


CONTEXT = context()


def known(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)


def survey(args: argparse.Namespace) -> pd.DataFrame:
    """Judge what is not in the table yet; after each, write the table."""
    table, lock = known(args.out), Lock()
    same = table[table["transformers"] == library().__version__]
    done = set() if args.again else set(zip(same["type"], same["cache"], strict=True))
    types = args.types or list(wild.causal_types())
    wanted = [(name, cache) for cache in args.caches for name in types]
    wanted = [some for some in wanted if some not in done]
    bar = tqdm(total=len(wanted), desc="types", disable=not sys.stderr.isatty())

    def one(some: tuple[str, str]) -> None:
        nonlocal table
        row = in_a_process(*some, args.seconds, args.gigabytes, args.full)
        with lock:
            others = table[(table["type"] != some[0]) | (table["cache"] != some[1])]
            new = pd.DataFrame([row], columns=COLUMNS)
            table = (pd.concat([others, new]) if len(others) else new).astype(WHOLE)
            table = table.sort_values(["cache", "type"], ignore_index=True)
            table.to_csv(args.out, index=False, float_format="%.3g")
            bar.update()
            bar.set_postfix_str(f"{some[0]} {some[1]}: {row['verdict']}")

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(one, wanted))
    bar.close()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", nargs="+", help="default: every causal type")
    parser.add_argument("--caches", nargs="+", default=CACHES, choices=wild.KINDS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="judge what is in the table, too")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--full", action="store_true", help="all scripts, not some of each kind")
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--out", type=Path, default=TABLE)
    table = survey(parser.parse_args())
    print(table.groupby(["cache", "verdict"]).size().to_string())


if __name__ == "__main__":
    main()
