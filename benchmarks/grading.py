"""Submissions graded per minute: this course's grader beside `nbgrader autograde`.

    python benchmarks/grading.py [--notebook 01] [--students 20] [--rounds 5] [--jobs 2] [--out CSV]

Needs the extra `instructor`, and bubblewrap for the sandbox (without it, our grader runs students'
code unprotected, and the CSV says so). As above it takes about 10 minutes on two cores.

Submissions are the student edition with the worked answers put in, each with a comment of its own;
every second one has a mistake in one exercise. In each round four contenders grade the same fresh
submissions one after the other, in reverse order every other round: either grader with one process
and with `--jobs` of them. nbgrader has no parallelism of its own: its processes are as many
commands at the same time, on one gradebook, each with its share of the students. All run torch with
one thread, as our grader does by itself: with more, processes get into each other's way.

A contender is timed as commands in new processes, so a block of submissions also pays for what is
done once per batch: importing, and for our grader making the outputs to compare with (from a new
seed). This `start-up` is measured by giving the same commands again when everything is graded.
`seconds` per submission has its share of the start-up in it, `large batch` has none. What is done
once per course, `nbgrader generate_assignment`, is timed apart. A ratio is nbgrader's time divided
by ours, taken in each round and then the median of the rounds.

The two do not do the same work. nbgrader runs the whole notebook, with the visible checks, without
protection, and writes it with its outputs. Ours runs each exercise apart, in a sandbox, on inputs
that nobody has seen; it could write feedback pages, but does not here. So the verdicts are
compared, with each other and with the mistakes put in. With nbgrader a mistake also costs the
exercises that use the wrong answer: these are counted as `knock-on`. Any other difference is
printed, and ends in exit status 1.
"""

import argparse
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
import pandas as pd

# Before this file's folder, where `grading` would be this file.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from grading import sandbox
from grading.graft import NOTEBOOKS, exercises
from grading.probes import PROBES

MISTAKES = {
    "softmax": ("x - row_max", "x"),
    "causal_mask": ("<=", "<"),
    "attention": (" / math.sqrt(q.size(-1))", ""),
    "multi_head": (".transpose(1, 2).reshape(", ".reshape("),
    "layer_norm": (", unbiased=False", ""),
    "feed_forward": ("torch.relu(self.fc1(x))", "self.fc1(x)"),
    "decoder_layer": ("self.attention(self.norm1(x))", "self.norm1(self.attention(x))"),
    "model": ("self.norm(x)", "x"),
    "keep_top_k": ("logits < smallest_kept", "logits <= smallest_kept"),
    "keep_top_p": ("probability.cumsum(-1) - probability", "probability.cumsum(-1)"),
    "next_token": ("/ temperature", "* temperature"),
    "generate": ("logits[:, -1]", "logits[:, 0]"),
}
GRADE = """
import json, sys
from pathlib import Path
from grading.batch import grade
given = json.loads(sys.argv[1])
grade(folder=Path(given.pop("folder")), out=Path(given.pop("out")), feedback=False, **given)
"""
OURS, NBGRADER = "this course", "nbgrader"
Verdicts = dict[tuple[str, str], str]  # student and exercise, and "right" or another status


def graded(notebook: str) -> list[str]:
    """The exercises with points: nbgrader's gradebook has no verdict on the others."""
    return [name for name, exercise in exercises(notebook).items() if exercise.points]


def submission(notebook: str, student: str, mistake: str | None) -> nbformat.NotebookNode:
    """The student edition with the worked answers, one of them with a mistake in it."""
    (path,) = (NOTEBOOKS / "exercises").glob(f"{notebook}_*.ipynb")
    made = nbformat.read(path, as_version=4)
    for cell in made.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in exercises(notebook):
            code = exercises(notebook)[name].code
            if name == mistake:
                assert MISTAKES[name][0] in code, f"nowhere to put the mistake into {name}"
                code = code.replace(*MISTAKES[name])
            cell.source = f"# by {student}\n{code}"
    return made


def run(commands: list[list[str]], folder: Path) -> float:
    """Seconds until commands that start together have ended. Raises RuntimeError if one fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {"PATH": path, "PYTHONPATH": str(NOTEBOOKS.parent), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w+") as log:
        options = {"cwd": folder, "env": os.environ | settings, "stdout": log, "stderr": log}
        begin = time.perf_counter()
        running = [subprocess.Popen(command, **options) for command in commands]
        failed = [process.args for process in running if process.wait()]
        seconds = time.perf_counter() - begin
        if failed:
            log.seek(0)
            raise RuntimeError(f"{shlex.join(failed[0])} failed:\n{log.read()[-3000:]}")
    return seconds


def compare(
    names: list[str], mistakes: dict[str, str | None], ours: Verdicts, theirs: Verdicts
) -> pd.Series:
    """How many verdicts on the exercises `names` there are, are right by both, are wrong by
    nbgrader since they stand on a mistake elsewhere, and are not as they must be otherwise."""
    found = {"verdicts": 0, "both right": 0, "knock-on": 0, "different": 0}
    for (student, mistake), name in itertools.product(mistakes.items(), names):
        a, b = ours.get((student, name)), theirs.get((student, name))
        expected = "wrong" if mistake == name else "right"
        found["verdicts"] += 1
        if a == b == expected:
            found["both right"] += 1
        elif (a, b) == ("right", "wrong") and mistake in PROBES[name].needs:
            found["knock-on"] += 1
        else:
            found["different"] += 1
            print(f"{student}, {name}: ours {a!r}, nbgrader {b!r}, but it is {expected}")
    return pd.Series(found)


def summary(blocks: pd.DataFrame) -> pd.DataFrame:
    """Medians over the rounds for each contender, the lowest and highest, and the ratios."""
    startless = blocks["block"] - blocks["start-up"]
    blocks = blocks.assign(seconds=blocks["block"] / blocks["submissions"])
    blocks["large batch"] = startless / blocks["submissions"]
    theirs = blocks[blocks["grader"] == NBGRADER].set_index(["round", "processes"])
    at = pd.MultiIndex.from_frame(blocks[["round", "processes"]])
    blocks["ratio"] = theirs["seconds"].loc[at].to_numpy() / blocks["seconds"]
    blocks["ratio large batch"] = theirs["large batch"].loc[at].to_numpy() / blocks["large batch"]
    groups = blocks.groupby(["grader", "processes"], sort=False)
    table = groups[["seconds", "start-up", "large batch", "ratio", "ratio large batch"]].median()
    for place, name in ((4, "ratio"), (1, "seconds")):
        table.insert(place, f"{name} highest", groups[name].max())
        table.insert(place, f"{name} lowest", groups[name].min())
    table.insert(3, "per minute", 60 / table["seconds"])
    return table.reset_index()


class Comparison:
    """A course directory for each number of nbgrader's processes, with the same submissions."""

    def __init__(self, notebook: str, jobs: int, work: Path):
        self.notebook, self.jobs, self.work = notebook, jobs, work
        (self.worked,) = NOTEBOOKS.glob(f"{notebook}_*.ipynb")
        self.courses = {n: work / f"course {n}" for n in sorted({1, jobs})}
        source = self.courses[1] / "source" / "course"
        source.mkdir(parents=True)
        shutil.copy(self.worked, source)
        command = ["nbgrader", "generate_assignment", "course"]
        root = f"--CourseDirectory.root={self.courses[1]}"
        self.set_up = run([[*command, root]], work)
        if jobs > 1:
            shutil.copytree(self.courses[1], self.courses[jobs])

    def hand_in(self, number: int, count: int) -> dict[str, str | None]:
        """Hand in the submissions of a round; returns the exercise with the mistake in each."""
        names, mistakes = graded(self.notebook), {}
        for i in range(count):
            nth, student = number * count + i, f"p{i * self.jobs // count}-r{number}-{i}"
            mistakes[student] = names[nth // 2 % len(names)] if nth % 2 == 0 else None
            made = submission(self.notebook, student, mistakes[student])
            folders = [self.work / f"handed in {number}" / student]
            folders += [c / "submitted" / student / "course" for c in self.courses.values()]
            for folder in folders:
                folder.mkdir(parents=True)
                nbformat.write(made, folder / self.worked.name)
        return mistakes

    def ours(self, number: int, processes: int) -> tuple[float, float, Verdicts]:
        """Seconds for a round, seconds for the same command again, and the verdicts."""
        out = self.work / f"grades {number} {processes}"
        given = {"folder": str(self.work / f"handed in {number}"), "out": str(out)}
        given |= {"notebook": self.notebook, "seed": 1000 + number, "jobs": processes}
        given["isolated"] = sandbox.why_not() is None
        command = [sys.executable, "-c", GRADE, json.dumps(given)]
        block, again = run([command], self.work), run([command], self.work)
        names = {exercise.title: name for name, exercise in exercises(self.notebook).items()}
        rows = pd.read_csv(out / "gradebook.csv").to_dict("records")
        verdicts = {(r["student"], names[r["exercise"]]): r["status"] for r in rows}
        return block, again, verdicts

    def nbgrader(self, number: int, processes: int) -> tuple[float, float, Verdicts]:
        """The same by as many commands as `processes`, on one gradebook."""
        from nbgrader.api import Gradebook

        course = self.courses[processes]
        options = [f"--CourseDirectory.root={course}", "--ExecutePreprocessor.timeout=300"]
        parts = ["*"] if processes == 1 else [f"p{part}" for part in range(processes)]
        students = [f"--student={part}-r{number}-*" for part in parts]
        commands = [["nbgrader", "autograde", "course", *options, some] for some in students]
        block, again = run(commands, self.work), run(commands, self.work)
        verdicts = {}
        with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
            for one in book.notebook_submissions(self.worked.stem, "course"):
                if f"-r{number}-" in one.student.id:
                    for grade in one.grades:
                        name = grade.name.removesuffix("_check")
                        right = grade.auto_score == grade.max_score
                        verdicts[one.student.id, name] = "right" if right else "wrong"
        return block, again, verdicts


def measure(
    notebook: str, students: int, rounds: int, jobs: int, work: Path
) -> tuple[pd.DataFrame, pd.Series, float]:
    """A row for each block, the counts of `compare`, and the seconds of generate_assignment."""
    comparison, rows, counts = Comparison(notebook, jobs, work), [], 0
    graders = {OURS: comparison.ours, NBGRADER: comparison.nbgrader}
    contenders = [(name, n) for n in comparison.courses for name in graders]
    for number in range(rounds):
        mistakes, found = comparison.hand_in(number, students // rounds), {}
        for name, n in contenders[:: -1 if number % 2 else 1]:
            block, again, found[name, n] = graders[name](number, n)
            row = {"round": number, "grader": name, "processes": n, "block": block}
            rows.append(row | {"start-up": again, "submissions": len(mistakes)})
            print(f"round {number + 1}, {name} x {n}: {block:.1f} s, again {again:.1f} s")
        for n in comparison.courses:
            both = found[OURS, n], found[NBGRADER, n]
            counts = counts + compare(graded(notebook), mistakes, *both)
    blocks = pd.DataFrame(rows).sort_values(["processes", "grader"], ascending=[True, False])
    return blocks, counts, comparison.set_up


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 if the graders do not agree."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebook", default="01", choices=["01", "02", "03"])
    parser.add_argument("--students", type=int, default=20, help="submissions in all rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes of the parallel contenders")
    parser.add_argument("--out", type=Path, default=Path("grading.csv"), help="CSV to write")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.jobs < 1 or given.students // given.rounds < given.jobs:
        parser.error("every round needs a submission for each process")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as work:
        blocks, counts, set_up = measure(
            given.notebook, given.students, given.rounds, given.jobs, Path(work)
        )
    table = summary(blocks)
    print(f"\nNotebook {given.notebook}, {blocks['submissions'].iat[0]} submissions a block")
    print(table.round(2).to_string(index=False))
    print(f"once per course, not in the table: nbgrader generate_assignment {set_up:.1f} s")
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    packages = ("kv-cache-course", "nbgrader", "nbval", "ipykernel", "torch")
    about = {
        "notebook": given.notebook,
        "rounds": given.rounds,
        "submissions a block": blocks["submissions"].iat[0],
        "generate_assignment": set_up,
        **counts,
        "isolation": "NONE" if sandbox.why_not() else "bubblewrap",
        "versions": " ".join(f"{name} {version(name)}" for name in packages),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "command": shlex.join(["python", "benchmarks/grading.py", *arguments]),
    }
    table.assign(**about).to_csv(given.out, index=False)
    return int(counts["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
