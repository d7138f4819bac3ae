"""Which small mistakes in the cache layers of `transformers` does the course's judgement refuse?

    python benchmarks/wild_mutants.py [--layers DynamicLayer ...] [--number N] [--seeds 1]
        [--loud] [--out wild_mutants.csv] [--fresh]

Changes the methods of the library's layers in one place at a time (`tests/support/mutated_library`
says which, and which small models have such a layer), and judges these models. Most changes of a
name, an attribute, a call or a keyword raise an error at once: they are tried with --loud. What
takes ten times as long as the right layer is stopped.

After each mutant one row goes to the CSV. Started again, it goes on where it stopped; after a
change of the judgement or another version of the library, use --fresh. At the end come the scores,
and what was accepted without being in `data/equivalent_layers.csv`, to be looked at.
"""

import argparse
import sys
import time
from pathlib import Path

import pandas as pd

# Before this file's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from apart import Apart
from mutants import Mutant, sample
from mutated_library import LAYERS, LOUD, equivalent

COLUMNS = "layer line what verdict problem seconds".split()
TIMES_AS_LONG, AND_SECONDS, FOR_THE_RIGHT_ONE = 10, 20, 900


def judge_all(number: int, left: list[Mutant], seeds: int, out: Path) -> None:
    """Judge a layer as it is, which must be accepted, and then its mutants."""
    layer, judge, start = LAYERS[number], Apart("mutated_library.numbered"), time.monotonic()
    found = judge(number, layer.source, seeds, limit=FOR_THE_RIGHT_ONE)
    if found[0] != "accepted":
        return print(f"{layer.name} as it is, and so not its mutants: {': '.join(found)}")
    limit = TIMES_AS_LONG * (time.monotonic() - start) + AND_SECONDS
    for mutant in left:
        start = time.monotonic()
        try:
            word, problem = judge(number, mutant.source, seeds, limit=limit)
        except TimeoutError as error:
            word, problem = "no end", str(error)
        except ProcessLookupError as error:
            word, problem = "refused", str(error)
        row = [layer.name, mutant.line, mutant.what, word, " ".join(problem.split())[:160]]
        row.append(round(time.monotonic() - start, 2))
        pd.DataFrame([row]).to_csv(out, mode="a", header=False, index=False)
        print(f"{layer.name}, {mutant.what}: {word}", flush=True)
    judge.close()


def main() -> None:
    names = [layer.name for layer in LAYERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", nargs="+", choices=names, default=names)
    parser.add_argument("--number", type=int, default=10**9, help="so many of each layer")
    parser.add_argument("--seeds", type=int, default=1, help="random models for each")
    parser.add_argument("--loud", action="store_true", help="also what mostly raises an error")
    parser.add_argument("--out", type=Path, default=Path("wild_mutants.csv"))
    parser.add_argument("--fresh", action="store_true", help="forget what is in the CSV")
    options = parser.parse_args()
    if options.fresh or not options.out.exists():
        pd.DataFrame(columns=COLUMNS).to_csv(options.out, index=False)
    for number, layer in enumerate(LAYERS):
        if layer.name not in options.layers:
            continue
        found = [some for some in layer.mutants() if options.loud or some.kind not in LOUD]
        table = pd.read_csv(options.out)
        done = set(table["what"][table["layer"] == layer.name])
        left = [some for some in sample(found, options.number) if some.what not in done]
        if left:
            judge_all(number, left, options.seeds, options.out)
    summary(pd.read_csv(options.out))


def summary(table: pd.DataFrame) -> None:
    counts = table.groupby(["layer", "verdict"], sort=False).size().unstack(fill_value=0)
    refused = (table["verdict"] != "accepted").groupby(table["layer"], sort=False).mean()
    print(counts.assign(score=(100 * refused).round(1)).to_string())
    for row in table[table["verdict"] == "accepted"].itertuples():
        if row.what not in equivalent(row.layer):
            print(f"accepted: {row.layer}, {row.what}")


if __name__ == "__main__":
    main()
