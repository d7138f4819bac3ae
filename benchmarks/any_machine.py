"""Do the notebooks that measure times pass on other machines than the one they were written on?

    python benchmarks/any_machine.py [--notebooks 05 06] [--conditions "as is" "one core"]
        [--runs 5] [--out any_machine.csv] [--fresh]

Runs every notebook with cells whose output is not compared, each time in a fresh kernel, as it is
and on imitations of other machines (`CONDITIONS`; for Linux). A run fails if a cell raises, or
if a compared cell shows another text than the committed one. All of it takes several hours.

After each run one row goes to the CSV. What its uncompared cells printed, which is what they found
here, goes to a file of the same name that ends in .jsonl. Started again, it goes on where it
stopped; after a change of a notebook, use --fresh. The exit status is 1 if a run failed.

The imitations are good for correctness, not for speed: an older processor is slower in other ways.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from run_all import ROOT, notebooks

COLUMNS = "notebook condition run verdict seconds cells message machine versions".split()


@dataclass(frozen=True)
class Condition:
    """What is done to the process that runs a notebook, and so to its kernel and their children."""

    variables: dict[str, str] = field(default_factory=dict)
    one_core: bool = False
    busy_per_core: int = 0
    memory: int | None = None  # bytes


AVX2 = dict.fromkeys(("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"), "AVX2")
CONDITIONS = {
    "as is": Condition(),
    "default": Condition({"ATEN_CPU_CAPABILITY": "default"}),
    "avx2": Condition({"ATEN_CPU_CAPABILITY": "avx2"} | AVX2),
    "one thread": Condition({"OMP_NUM_THREADS": "1"}),
    "one core": Condition(one_core=True),
    "busy": Condition(busy_per_core=2),
    "4 GB": Condition(memory=4 * 10**9),
}


def environment(condition: Condition) -> dict[str, str]:
    """The variables for a run: those of the condition, and none that belong to another one."""
    others = {name for other in CONDITIONS.values() for name in other.variables}
    return {k: v for k, v in os.environ.items() if k not in others} | condition.variables


def restrict(condition: Condition) -> None:
    """Bind this process, and all that it starts, to one core or to so much memory (Linux).

    RLIMIT_DATA counts what a process may write to, file mappings and reserved addresses left out:
    PyTorch reserves gigabytes of addresses (RLIMIT_AS) that it never fills. It holds for each
    process, not for all together.
    """
    if condition.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if condition.memory:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (condition.memory, condition.memory))


def shown(cell: nbformat.NotebookNode) -> str:
    """The text that a cell printed or returned, pictures left out."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif "text/plain" in output.get("data", {}) and "image/png" not in output.data:
            texts.append(output.data["text/plain"] + "\n")
    return "".join(texts)


def execute(path: Path) -> dict:
    """Run a notebook, go on after a cell that fails; say which failed and what the others found."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    before = [shown(cell) for cell in cells]
    folder = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=900, allow_errors=True, resources=folder)
    failures, found = [], {}
    try:
        client.execute()
    except Exception as error:  # the kernel died, or a cell did not end
        failures.append(("?", f"{type(error).__name__}: {last_line(str(error))}"))
    for number, (cell, committed) in enumerate(zip(cells, before, strict=True)):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            failures.append((number, f"{errors[0].ename}: {last_line(errors[0].evalue)}"))
        elif "nbval-ignore-output" in cell.metadata.get("tags", []):
            found[number] = shown(cell)
        elif not failures and shown(cell) != committed:
            failures.append((number, f"shows {last_line(shown(cell))!r}"))
    return {"failures": failures, "found": found}


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def run_once(path: str, name: str) -> dict:
    """One run of a notebook in a process of its own, under a condition: `execute`'s answer."""
    condition = CONDITIONS[name]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = "import os; here = os.getppid()\nwhile os.getppid() == here: pass"  # while we live
    spin = [sys.executable, "-c", count]
    others = [subprocess.Popen(spin) for _ in range(condition.busy_per_core * cores)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder, "answer.json")
            command = [sys.executable, __file__, "--execute", path, name, answer]
            done = subprocess.run(command, env=environment(condition), stderr=subprocess.PIPE)
            if answer.exists():
                return json.loads(answer.read_text(encoding="utf-8"))
            return {"failures": [("?", last_line(done.stderr.decode()))], "found": {}}
    finally:
        for other in others:
            other.kill()
            other.wait()


def machine() -> str:
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def planned(paths: list[str], names: list[str], runs: int, out: Path) -> list[tuple]:
    """Notebook, condition, run: all that are not in the CSV yet, the first run of each first."""
    done = set()
    if out.exists():
        table = pd.read_csv(out)
        done = set(zip(table["notebook"], table["condition"], table["run"], strict=True))
    every = [(path, name, run) for run in range(1, runs + 1) for name in names for path in paths]
    return [plan for plan in every if (Path(plan[0]).stem, *plan[1:]) not in done]


def add(out: Path, path: str, name: str, run: int, seconds: float, answer: dict) -> None:
    """Append a run to the CSV, and what it found to the .jsonl beside it."""
    failures = answer["failures"]
    values = [Path(path).stem, name, run, "failed" if failures else "passed", round(seconds, 1)]
    values += [" ".join(str(cell) for cell, _ in failures), " | ".join(m for _, m in failures)]
    values += [machine(), f"Python {platform.python_version()}, torch {version('torch')}"]
    new = not out.exists()
    with open(out, "a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS] * new + [values])
    with open(out.with_suffix(".jsonl"), "a", encoding="utf-8") as file:
        found = dict(zip(COLUMNS[:3], values, strict=False)) | {"found": answer["found"]}
        print(json.dumps(found), file=file)


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """Notebooks by conditions: how many runs failed, of how many."""
    failed = (table["verdict"] != "passed").groupby([table["notebook"], table["condition"]])
    texts = failed.sum().astype(str) + " of " + failed.size().astype(str)
    order = [name for name in CONDITIONS if name in set(table["condition"])]
    return texts.unstack().reindex(columns=order).fillna("")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", nargs="+", metavar="NN", help="only these")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("any_machine.csv"))
    parser.add_argument("--fresh", action="store_true", help="forget the runs in the CSV")
    parser.add_argument("--execute", nargs=3, help=argparse.SUPPRESS)  # used by run_once
    options = parser.parse_args()
    if options.execute:
        path, name, answer = options.execute
        restrict(CONDITIONS[name])
        Path(answer).write_text(json.dumps(execute(ROOT / path)), encoding="utf-8")
        return 0
    paths = [path for path, ignored in notebooks().items() if ignored]
    if options.notebooks:
        paths = [path for path in paths if Path(path).name.startswith(tuple(options.notebooks))]
    if options.fresh:
        options.out.unlink(missing_ok=True)
        options.out.with_suffix(".jsonl").unlink(missing_ok=True)
    for path, name, run in planned(paths, options.conditions, options.runs, options.out):
        start = time.monotonic()
        answer = run_once(path, name)
        add(options.out, path, name, run, time.monotonic() - start, answer)
        print(f"{Path(path).stem}, {name}, run {run}:", answer["failures"] or "passed", flush=True)
    table = pd.read_csv(options.out)
    print(overview(table).to_string())
    return int((table["verdict"] != "passed").any())


if __name__ == "__main__":
    sys.exit(main())
