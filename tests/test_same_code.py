"""What a notebook builds and what the package holds are the same code."""

import ast

import nbformat
import pytest

from course_utils.transformer import ROOT

ROOMS = {
    "01_attention": "attention",
    "02_transformer_block": "transformer",
    "03_generation": "generation",
}
EXTENDED_LATER = {
    "MultiHeadAttention",
    "DecoderLayer",
    "DecoderOnlyTransformer",
    "generate",
    "beam_search",
}


def definitions(source):
    """Functions and classes at the top of a source text, by name, without their docstrings."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for part in ast.walk(node):
                if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(part):
                    part.body = part.body[1:]
            found[node.name] = ast.dump(node)
    return found


@pytest.mark.parametrize(("name", "room"), list(ROOMS.items()))
def test_notebook_and_package_agree(name, room):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    source = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    built = definitions(source)
    held = definitions((ROOT / "course_utils" / f"{room}.py").read_text(encoding="utf-8"))
    assert set(built) & set(held) & EXTENDED_LATER
    shared = set(built) & set(held) - EXTENDED_LATER
    assert shared
    for thing in shared:
        assert built[thing] == held[thing], thing


@pytest.mark.parametrize("name", list(ROOMS))
def test_every_exercise_has_a_card_hints_a_solution_and_a_check(name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    solutions = [i for i, c in enumerate(cells) if c.metadata.get("nbgrader", {}).get("solution")]
    assert 3 <= len(solutions) <= 6
    for i in solutions:
        card, cell, check = cells[i - 1 : i + 2]
        assert card.source.startswith("### Exercise") and "**Difficulty**" in card.source
        assert card.source.count("<details>") == card.source.count("</details>") == 3
        assert "### BEGIN SOLUTION" in cell.source and "### END SOLUTION" in cell.source
        assert check.source.startswith("print(checks.check_")
        graded = check.metadata["nbgrader"]
        assert graded["grade"] and graded["locked"]
        assert (graded["points"] > 0) != ("(optional)" in card.source.splitlines()[0])
        assert graded["grade_id"] == cell.metadata["nbgrader"]["grade_id"] + "_check"
