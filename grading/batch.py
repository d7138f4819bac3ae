"""Grade a folder of submissions: every one gets its rows, and the batch always ends."""

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from . import judge
from .answers import Answer, Unreadable, read
from .extract import extract
from .gradebook import Gradebook, Submission, versions, write_whole
from .judge import Judged

LONGEST_NAME = 120  # bytes
FORMAT = "2"  # of what is kept: a result that was kept in another one is not read
HASHED = re.compile(r"-[0-9a-f]{16}$")


class Unfinished(RuntimeError):
    """The machines that judge are gone before all was graded."""


def submissions(folder: Path, notebook: str) -> Iterator[Submission]:
    """What is handed in for `notebook` ("01" to "06"): one file or folder for each student.

    Raises OSError if `folder` cannot be read.
    """
    seen: set[str] = set()
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        student = _name(entry, seen)
        seen.add(student)
        if entry.is_symlink():
            yield Submission(student, None, "is a symbolic link: hand in the file itself")
        elif entry.is_dir():
            yield _in_folder(entry, notebook, student)
        elif entry.suffix == ".ipynb":
            yield Submission(student, entry)
        else:
            kind = entry.suffix or "a file without an ending"
            yield Submission(student, None, f"is {kind}, not a notebook (.ipynb): unpack it first")


def _name(entry: Path, seen: set[str]) -> str:
    """What a student is called: the name of the file or folder, and another one for each."""
    first = [entry.stem, entry.name] if entry.suffix == ".ipynb" else [entry.name]
    others = (f"{entry.name} ({number})" for number in itertools.count(2))
    names = (_readable(name) for name in itertools.chain(first, others))
    return next(name for name in names if name not in seen)


def _readable(name: str) -> str:
    """A name without what steers a terminal or ends a line, and not what UTF-8 cannot say."""
    printable = "".join(c if c.isprintable() or c.isspace() else "?" for c in name)
    return " ".join(printable.encode("utf-8", "replace").decode().split()) or "?"


def _in_folder(folder: Path, notebook: str, student: str) -> Submission:
    every = sorted(folder.glob("*.ipynb"))
    found = [path for path in every if path.name.startswith(f"{notebook}_") or len(every) == 1]
    if not found:
        return Submission(student, None, f"holds no notebook {notebook}_....ipynb")
    if len(found) > 1:
        names = ", ".join(_readable(path.name) for path in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return Submission(student, None, f"holds more than one notebook {notebook}: {names}{more}")
    return Submission(student, found[0])


def grade_one(path: Path, notebook: str, seed: int, isolated: bool = True) -> dict[str, str]:
    """The status of each exercise of one submission. Raises Unreadable."""
    found = extract(read(path), notebook)
    return judge.judge(found, judge.task(notebook, seed, isolated)).statuses


@dataclass(frozen=True)
class Batch:
    """Where a batch keeps its results, and how it judges.

    What is found of a submission is what was judged, or a text: why there is nothing to judge.
    """

    out: Path
    task: judge.Task

    def kept(self, content: bytes) -> Path:
        """The file with the result of a submission of this content: another for each task."""
        task = self.task
        parts = [FORMAT, task.notebook, str(task.seed), str(task.isolated), versions()]
        parts += [f"{name} {printed}" for name, printed in task.expected.items()]
        key = hashlib.sha256(content + "\0".join(parts).encode()).hexdigest()
        return self.out / "results" / f"{key}.json"

    def page(self, student: str) -> Path:
        """The file with a student's feedback; its name is the student's where that is plain.

        Any other name, and one that looks like what such a name becomes, ends in a hash of it.
        """
        plain = re.sub(r"[^\w .()-]", "_", student).strip(" .")
        plain = plain.encode()[:LONGEST_NAME].decode(errors="ignore")
        if plain != student or HASHED.search(student):
            plain += "-" + hashlib.sha256(student.encode()).hexdigest()[:16]
        return self.out / "feedback" / f"{plain}.html"

    def has_page(self, item: Submission, kept: Path) -> bool:
        """Whether the student has a page, and of this submission: its last line says of which."""
        page = self.page(item.student)
        return page.exists() and page.read_text(encoding="utf-8").endswith(_of(kept))

    def prepare(self, item: Submission) -> tuple[Judged | str | None, dict[str, Answer], Path]:
        """What is known already; else None, the answers, and where results go."""
        nowhere = Path()
        if item.path is None:
            return item.problem, {}, nowhere
        try:
            content = read(item.path)
            kept = self.kept(content)
            if kept.exists() and (not self.task.feedback or self.has_page(item, kept)):
                return Judged(**json.loads(kept.read_text(encoding="utf-8"))), {}, kept
            return None, extract(content, self.task.notebook), kept
        except Unreadable as error:
            return f"the file {error}", {}, nowhere
        except Exception as error:
            return f"could not be graded ({_reason(error)})", {}, nowhere

    def keep(self, item: Submission, kept: Path, result: Callable[[], Judged]) -> Judged | str:
        """Write what was found, the page first; an error is a text, and is not kept."""
        try:
            judged = result()
        except Exception as error:
            return f"could not be graded ({_reason(error)})"
        found = {name: part for name, part in asdict(judged).items() if name != "page"}
        try:
            if judged.page:
                write_whole(self.page(item.student), judged.page + _of(kept))
            write_whole(kept, json.dumps(found))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            problem = f"{where}{error.strerror}"
            said = f"{item.student}: graded, but not all could be written ({problem})"
            tqdm.write(said, file=sys.stderr)
        return replace(judged, page="")


def _of(kept: Path) -> str:
    return f"<!-- {kept.stem} -->\n"


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


class Here:
    """Judges on this machine. Before the first submission, it judges the course's own answers."""

    def __init__(self, pool: ThreadPoolExecutor, task: judge.Task):
        self.pool, self.task = pool, task
        self.first: Future | None = None

    def submit(self, given: dict[str, Answer], student: str) -> Future:
        self.first = self.first or self.pool.submit(judge.judge_course, self.task)
        return self.pool.submit(judge.judge, given, self.task, student)

    def completed(self, running: list[Future]) -> Iterator[Future]:
        """Each as it is done. Raises NotFitToGrade."""
        if self.first:
            self.first.result()
        yield from as_completed(running)


@contextmanager
def _here(jobs: int, task: judge.Task) -> Iterator[Here]:
    """Judge on this machine, `jobs` submissions at a time. An interrupt ends what runs."""
    try:
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            try:
                yield Here(pool, task)
            except BaseException:
                judge.interrupt()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        judge.resume()


def _place(dask: str | None, jobs: int, task: judge.Task) -> AbstractContextManager:
    """Where to judge: a context whose value submits, and gives back what is completed."""
    if dask is None:
        return _here(jobs, task)
    from .cluster import on_dask

    return on_dask(dask, task)


def grade(
    folder: Path,
    out: Path,
    notebook: str,
    seed: int,
    jobs: int = 1,
    isolated: bool = True,
    feedback: bool = False,
    dask: str | None = None,
) -> pd.DataFrame:
    """Grade every submission for one notebook; writes and returns the gradebook.

    `out` keeps the result of each submission, so that a run that was interrupted goes on where it
    was, and a corrected submission is graded alone. It also gets a summary of the class, and with
    `feedback` a page for each student. `dask` is the address of a Dask scheduler whose workers do
    the work. First of all the course's own answers are judged, on every machine: a grader that
    fails them fails everybody.
    Raises OSError if the folders cannot be used, ValueError for an unknown notebook, NotFitToGrade;
    with `dask`, Unfinished if the cluster is gone.
    """
    todo = list(submissions(folder, notebook))
    (out / "results").mkdir(parents=True, exist_ok=True)
    task = judge.task(notebook, seed, isolated, feedback)
    batch, book, running = Batch(out, task), Gradebook(out, task), {}
    bar = tqdm(total=len(todo), desc="grading", unit="file")
    with book, bar, _place(dask, jobs, task) as place:
        for item in todo:
            known, given, kept = batch.prepare(item)
            if known is None:
                running[place.submit(given, item.student)] = item, kept
            else:
                book.add(item, known)
                bar.update()
        for done in place.completed(list(running)):
            item, kept = running.pop(done)
            book.add(item, batch.keep(item, kept, done.result))
            bar.update()
    return book.table()
