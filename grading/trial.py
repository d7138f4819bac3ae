"""Judge one file, and say why: for instructors, without any folders."""

import re
import textwrap
from pathlib import Path

from . import judge
from .answers import Unreadable, read
from .extract import extract
from .graft import exercises, master
from .probes import PROBES
from .summary import plain

NOTEBOOKS = sorted({probe.notebook for probe in PROBES.values()})
GRADE_ID = re.compile(rb'"grade_id"\s*:\s*"([^"\\]*)"')
NARROWEST = 40  # columns
SAID = 2000  # characters of what a check says


def tried(
    path: Path, notebook: str | None, seed: int, isolated: bool, feedback: bool
) -> tuple[str, judge.Judged]:
    """The number of the notebook that a file is, unless `notebook` says it, and what was found.

    If something in it is not right, the course's own answers are judged too.
    Raises ValueError with what to do if it cannot be judged, NotFitToGrade, OSError.
    """
    name = plain(str(path))
    content = _content(path, name)
    number = notebook or _number(path, content)
    try:
        found = extract(content, number or NOTEBOOKS[0])
    except Unreadable as error:
        raise ValueError(f"{name} {error}.") from None
    if number is None:
        raise ValueError(
            f"{name} has none of the exercises that can be graded, and its name does not begin "
            f"with a number: say with --notebook which it is ({', '.join(NOTEBOOKS)})."
        )
    task = judge.task(number, seed, isolated, feedback)
    try:
        judged = judge.judge(found, task, plain(path.stem))
        if any(judged.statuses[name] != judge.RIGHT for name in judged.seconds):
            judge.judge_course(task)
    except judge.NotFitToGrade:
        raise
    except RuntimeError as error:
        raise ValueError(f"{name} could not be graded: {plain(str(error))}.") from error
    return number, judged


def _content(path: Path, name: str) -> bytes:
    if not path.exists():
        raise ValueError(f"{name}: there is no such file.")
    if path.is_dir():
        raise ValueError(f"{name} is a folder: give the notebook in it.")
    try:
        return read(path)
    except Unreadable as error:
        raise ValueError(f"{name} {error}.") from None


def _number(path: Path, content: bytes) -> str | None:
    """The notebook with most of a file's grade_ids; if that is none, or two, by the file's name."""
    ids = {name.decode(errors="replace") for name in GRADE_ID.findall(content)}
    has = {number: sum(name in ids for name in exercises(number)) for number in NOTEBOOKS}
    most = [number for number in NOTEBOOKS if has[number] == max(has.values()) > 0]
    if len(most) == 1:
        return most[0]
    return next((number for number in NOTEBOOKS if path.name.startswith(number)), None)


def table(number: str, judged: judge.Judged, width: int) -> str:
    """For a terminal of this width: what each exercise of a notebook got and why, and the total."""
    every, width = exercises(number), max(width - 1, NARROWEST)
    titles = max(len(exercise.title) for exercise in every.values())
    lines, total = [plain(master(number).cells[0].source.splitlines()[0].removeprefix("# ")), ""], 0
    lines += _row("exercise", "points", "status", titles, width)
    for name, exercise in every.items():
        status = judged.statuses[name]
        points = exercise.points if status == judge.RIGHT else 0
        got, total = f"{points} of {exercise.points}", total + points
        lines += _row(exercise.title, got, plain(status), titles, width)
        why = _why(status, judged.said.get(name))
        lines += textwrap.wrap(why, width, initial_indent="    ", subsequent_indent="    ")
    whole = sum(exercise.points for exercise in every.values())
    return "\n".join([*lines, *_row("total", f"{total} of {whole}", "", titles, width)])


def _row(title: str, points: str, status: str, titles: int, width: int) -> list[str]:
    """One line in columns, the first of `titles` characters; if that is too wide, a sentence."""
    line = f"{title:{titles}}  {points:8}  {status}".rstrip()
    if titles + len("  10 of 10  the kernel died") <= width:
        return [line]
    sentence = ", ".join(part for part in (points, status) if part)
    return textwrap.wrap(f"{title}: {sentence}", width, subsequent_indent="  ")


def _why(status: str, said: str | None) -> str:
    """What the course's check says of an answer, if it was asked."""
    if said is None or (said == "" and status == judge.RIGHT):
        return ""
    if said == "":
        return "The check finds nothing: only the inputs of the grading found a mistake."
    own = "With the student's own earlier answers, the" if status == judge.RIGHT else "The"
    return f"{own} check: {plain(said, SAID) or '…'}"
