"""Which small mistakes in a right cache does `kv_evaluate` refuse?

    python benchmarks/cache_mutants.py [--files kv_cache left_padding paged_cache fast_decode]
        [--number N] [--seeds 1] [--out cache_mutants.csv] [--fresh]

Changes the classes that hold the course's caches in one place at a time (`tests/support/mutants.py`
says how), and asks `kv_evaluate` about a small random model, or more (`--seeds`), with each of the
changed caches. What takes ten times as long as the right cache is stopped. All of it takes half an
hour.

After each mutant one row goes to the CSV. Started again, it goes on where it stopped; after a
change of a cache or of `kv_evaluate`, use --fresh. At the end come the scores, and what was
accepted, to be looked at: some changes make no difference in any use, or none that a model shows.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

# Before this file's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from mutants import sample
from mutated_caches import CACHES
from one_by_one import judge_all

COLUMNS = "file line what verdict problem seconds".split()


def main() -> None:
    files = list(dict.fromkeys(cache.file for cache in CACHES))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", nargs="+", choices=files, default=files)
    parser.add_argument("--number", type=int, default=10**9, help="so many of each cache")
    parser.add_argument("--seeds", type=int, default=1, help="random models for each")
    parser.add_argument("--out", type=Path, default=Path("cache_mutants.csv"))
    parser.add_argument("--fresh", action="store_true", help="forget what is in the CSV")
    options = parser.parse_args()
    if options.fresh or not options.out.exists():
        pd.DataFrame(columns=COLUMNS).to_csv(options.out, index=False)
    for number, cache in enumerate(CACHES):
        if cache.file in options.files:
            found = sample(cache.mutants(), options.number)
            table = pd.read_csv(options.out)
            done = set(table["what"][table["file"] == cache.file])
            if left := [mutant for mutant in found if mutant.what not in done]:
                given = number, cache.source, options.seeds
                judge_all(cache.file, "mutated_caches.numbered", given, left, options.out)
    table = pd.read_csv(options.out)
    counts = table.groupby(["file", "verdict"], sort=False).size().unstack(fill_value=0)
    refused = (table["verdict"] != "accepted").groupby(table["file"], sort=False).mean()
    print(counts.assign(score=(100 * refused).round(1)).to_string())
    for _, row in table[table["verdict"] == "accepted"].iterrows():
        print(f"accepted: {row['file']}, {row['what']}")


if __name__ == "__main__":
    main()
