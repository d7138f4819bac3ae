"""What a judgement found: differences between logits, results, reports (notebook 05)."""

import math
from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """The first place where logits are wrong, and by how much."""

    row: int
    position: int
    error: float
    largest: float

    def __str__(self) -> str:
        return (
            f"first differs at position {self.position} of row {self.row}, by {self.error:.2g} "
            f"(largest difference {self.largest:.2g})"
        )


def first_difference(expected: Tensor, actual: Tensor, tolerance: float) -> Difference | None:
    """Compare logits (B, T, V); None if all agree within `tolerance`. NaN never agrees.

    Earliest position first, then lowest row. Raises ValueError if the shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(
            f"logits have shape {tuple(actual.shape)}, expected {tuple(expected.shape)}: one row "
            "of logits for each token that was fed in"
        )
    error = (expected.double().cpu() - actual.double().cpu()).abs().nan_to_num(math.inf).amax(-1)
    wrong = (error > tolerance).nonzero().tolist()
    if not wrong:
        return None
    row, position = min(wrong, key=lambda where: (where[1], where[0]))
    return Difference(row, position, error[row, position].item(), error.max().item())


@dataclass
class Result:
    """The verdict on one test case, or on the capacity checks; passed if `problems` is empty."""

    name: str
    shape: str
    checks: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.checks > 0 and not self.problems


@dataclass
class Report:
    """What `evaluate` or `kv_evaluate` found; in a notebook it shows as a table."""

    title: str
    tolerance: float
    cases: list[Result]
    others: list[Result] = field(default_factory=list)

    @property
    def all_passed(self) -> bool:
        results = self.cases + self.others
        return bool(results) and all(result.passed for result in results)

    @property
    def num_passed(self) -> int:
        return sum(case.passed for case in self.cases)

    @property
    def problems(self) -> list[str]:
        return [f"{r.name}: {problem}" for r in self.cases + self.others for problem in r.problems]

    def __str__(self) -> str:
        rate = 100 * self.num_passed / len(self.cases)
        lines = [
            f"{self.title}:",
            f"  Num test cases: {len(self.cases)}",
            f"  All tests passed: {self.all_passed}",
            f"  Pass rate: {rate:.2f}% ({self.num_passed}/{len(self.cases)})",
            *(f"  {r.name}: {'passed' if r.passed else 'FAILED'}" for r in self.others),
        ]
        shown = [f"  {r.name}: {r.problems[0]}" for r in self.cases + self.others if r.problems]
        return "\n".join(lines + shown)

    def table(self) -> pd.DataFrame:
        """One row per test case, then one per further check."""
        rows = [
            {
                "case": result.name,
                "shape": result.shape,
                "comparisons": result.checks,
                "verdict": "passed" if result.passed else (result.problems or ["not run"])[0],
            }
            for result in self.cases + self.others
        ]
        return pd.DataFrame(rows).set_index("case")

    def _repr_html_(self) -> str:
        return self.table().to_html()
