"""How long a notebook takes: its words at 180 a minute, its lines of code at 8, its exercises.

    python -m authoring.minutes [01 04 ...]

Counted are the words of the text cells, without cards' minutes, formulas and what is folded
(hints, answers to predictions); the lines of code that are given (not those of the answers, which
the exercises' minutes are for); and the minutes on the cards. Figures' code and the progress cell
count like any other.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from . import COLAB, LINKS

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
WORDS, LINES = 180, 8  # a minute
FOLDED = re.compile(rf"<details>(?s:.*?)</details>|\$\$(?s:.*?)\$\$|{LINKS}")
ANSWER = re.compile(r"### BEGIN SOLUTION.*?### END SOLUTION", re.DOTALL)
ON_A_CARD = re.compile(r"^\| \*\*Difficulty\*\* \| .*?(\d+) minutes", re.MULTILINE)
STATED = re.compile(r"About (\d+) minutes")


@dataclass(frozen=True)
class Minutes:
    """What a notebook holds, and the minutes that it states."""

    words: int
    lines: int
    exercises: int
    stated: int

    @property
    def counted(self) -> float:
        return self.words / WORDS + self.lines / LINES + self.exercises


def minutes(path: Path) -> Minutes:
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.get("id") != COLAB]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = "\n".join(ANSWER.sub("", cell.source) for cell in cells if cell.cell_type == "code")
    stated = STATED.search(text)
    return Minutes(
        words=len(re.findall(r"\w[\w'-]*", FOLDED.sub("", text))),
        lines=sum(bool(line.strip()) for line in code.splitlines()),
        exercises=sum(map(int, ON_A_CARD.findall(text))),
        stated=int(stated.group(1)) if stated else 0,
    )


def timed() -> list[Path]:
    """The notebooks with exercises."""
    paths = [*NOTEBOOKS.glob("[01][0-9]_*.ipynb"), *NOTEBOOKS.glob("going_further/*.ipynb")]
    return sorted((p for p in paths if not p.name.startswith("00")), key=lambda path: path.name)


if __name__ == "__main__":
    for path in timed():
        if not sys.argv[1:] or path.name[:2] in sys.argv[1:]:
            found = minutes(path)
            print(f"{path.name[:2]}: {found}, counted {found.counted:.0f}")
