"""What a judgement found: results, the smallest failing use, reports (notebook 05)."""

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from .play import Outcome
from .steps import Script, words


@dataclass
class Result:
    """The verdict on one test case, or on one subject; passed if it was judged, without problems.

    `not_judged` says why a subject could not be judged: it has then neither passed nor failed.
    """

    name: str
    shape: str
    checks: int = 0
    problems: list[str] = field(default_factory=list)
    not_judged: str = ""

    @property
    def passed(self) -> bool:
        return self.checks > 0 and not self.problems

    @property
    def word(self) -> str:
        if self.not_judged:
            return f"not judged, because {self.not_judged}"
        return "passed" if self.passed else "FAILED"

    @property
    def verdict(self) -> str:
        """The word, or the first problem in place of FAILED."""
        return self.problems[0] if self.problems else self.word

    def as_dict(self) -> dict[str, Any]:
        """`verdict` is "passed", "failed" or "not judged"; `why` says why it was not judged."""
        judged = "passed" if self.passed else "failed"
        return {
            "name": self.name,
            "verdict": "not judged" if self.not_judged else judged,
            "why": self.not_judged or None,
            "checks": self.checks,
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class Failure:
    """The smallest script that was found to fail, and what was wrong in it.

    `dtype` is named if it is another one than the judgement's own, `tolerance` if it was given.
    `replays` is False if it fails with the texts of a test case only, which `replay` has not.
    """

    script: Script
    dtype: str
    outcome: Outcome
    tolerance: float | None = None
    replays: bool = True

    @property
    def line(self) -> str:
        """A line of Python that plays it again."""
        dtype = f", torch.{self.dtype}" if self.dtype else ""
        if self.tolerance is not None and not self.dtype:
            dtype = f", tolerance={self.tolerance:.3g}"
        return f"replay(model, {list(self.script)}{dtype})"

    def __str__(self) -> str:
        where = f" (in {self.dtype})" if self.dtype else ""
        return f"{words(self.script)}{where}: {self.outcome}"

    def as_dict(self) -> dict[str, Any]:
        """The script in words and as a line of Python; where the logits are wrong, and by how much.

        `position`, `row` and `error` are None where something else is wrong than logits, and
        `error` where it is infinite.
        """
        found = self.outcome.difference
        error = found.error if found and math.isfinite(found.error) else None
        return {
            "words": words(self.script),
            "line": self.line if self.replays else None,
            "dtype": self.dtype or None,
            "problem": self.outcome.problem,
            "position": found.position if found else None,
            "row": found.row if found else None,
            "error": error,
        }


@dataclass
class Report:
    """What `evaluate` or `kv_evaluate` found; in a notebook it shows as a table."""

    title: str
    tolerance: float
    cases: list[Result]
    others: list[Result] = field(default_factory=list)
    smallest: Failure | None = field(default=None, repr=False)
    trial: Any = field(default=None, repr=False)

    @property
    def all_passed(self) -> bool:
        results = self.cases + self.others
        return any(result.passed for result in results) and all(
            result.passed or result.not_judged for result in results
        )

    @property
    def num_passed(self) -> int:
        return sum(case.passed for case in self.cases)

    @property
    def problems(self) -> list[str]:
        return [f"{r.name}: {problem}" for r in self.cases + self.others for problem in r.problems]

    def __str__(self) -> str:
        lines = [
            f"{self.title}:",
            f"  Num test cases: {len(self.cases)}",
            f"  All tests passed: {self.all_passed}",
        ]
        if self.cases:
            rate = 100 * self.num_passed / len(self.cases)
            lines.append(f"  Pass rate: {rate:.2f}% ({self.num_passed}/{len(self.cases)})")
        lines += [f"  {r.name}: {r.word}" for r in self.others]
        shown = [f"  {r.name}: {r.problems[0]}" for r in self.cases + self.others if r.problems]
        if self.smallest is not None:
            shown.append(f"  Smallest failing use: {self.smallest}")
            shown += [f"  Again: {self.smallest.line}"] * self.smallest.replays
        return "\n".join(lines + shown)

    def as_dict(self) -> dict[str, Any]:
        """All of it for a program that reads it: plain values, as JSON has them."""
        return {
            "title": self.title,
            "passed": self.all_passed,
            "tolerance": self.tolerance,
            "cases": [result.as_dict() for result in self.cases],
            "subjects": [result.as_dict() for result in self.others],
            "smallest": None if self.smallest is None else self.smallest.as_dict(),
        }

    def table(self) -> pd.DataFrame:
        """One row per test case, then one per subject."""
        rows = [
            {
                "case": result.name,
                "shape": result.shape,
                "comparisons": result.checks,
                "verdict": result.verdict,
            }
            for result in self.cases + self.others
        ]
        return pd.DataFrame(rows).set_index("case")

    def _repr_html_(self) -> str:
        return self.table().to_html()
