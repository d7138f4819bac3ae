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
from pathlib import Path

import pandas as pd

# Before this file's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from mutants import sample
from mutated_library import LAYERS, LOUD, equivalent
from one_by_one import judge_all

COLUMNS = "layer line what verdict problem seconds".split()


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
            given = number, layer.source, options.seeds
            judge_all(layer.name, "mutated_library.numbered", given, left, options.out)
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
