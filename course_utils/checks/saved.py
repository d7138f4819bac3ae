"""How far a student is in each notebook, read from the notebooks as they were saved."""

import json
import re
from pathlib import Path

import pandas as pd

from ..transformer import ROOT

CARD = re.compile(r"^### Exercise (.+)$", re.M)


def how_far(folder: Path = ROOT / "notebooks" / "exercises") -> pd.DataFrame:
    """One row for each notebook in `folder`: exercises whose check has passed, of how many, and
    the next one. Nothing is run. What a notebook that cannot be read needs is said in its row."""
    rows = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            states = _states(cells)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            rows[path.stem] = "?", "this file cannot be read as a notebook"
            continue
        done = sum(states.values())
        left = [card for card, passed in states.items() if not passed]
        rows[path.stem] = f"{done} of {len(states)}", left[0] if left else "all done"
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["passed", "next"])
    return table.rename_axis("notebook")


def _states(cells: list[dict]) -> dict[str, bool]:
    """The title of each card, and whether the check below it has passed."""
    states, card = {}, ""
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and (found := CARD.findall(source)):
            card = found[-1]
        elif cell["metadata"].get("nbgrader", {}).get("grade"):
            kinds = {output["output_type"] for output in cell["outputs"]}
            states[card] = bool(kinds) and "error" not in kinds
    return states
