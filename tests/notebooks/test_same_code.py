"""What a notebook builds and what the package holds are the same code."""

import ast

import nbformat
import pytest
from source import code_of, definitions, without_docstrings

from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

ROOMS = {
    "01_attention": "attention",
    "02_transformer_block": "transformer",
    "03_generation": "generation",
    "06_latency_sweep": "benchmark",
}
# Extended by a later notebook, or (token_times) built around another start and clock.
DIFFERENT = {
    "MultiHeadAttention",
    "DecoderLayer",
    "DecoderOnlyTransformer",
    "generate",
    "beam_search",
    "token_times",
}


def code_in(name):
    return code_of(ROOT / "notebooks" / f"{name}.ipynb")


@pytest.mark.parametrize(("name", "room"), list(ROOMS.items()))
def test_notebook_and_package_agree(name, room):
    built = definitions(code_in(name))
    held = definitions((ROOT / "course_utils" / f"{room}.py").read_text(encoding="utf-8"))
    shared = set(built) & set(held) - DIFFERENT
    assert set(built) & set(held) & DIFFERENT
    assert shared
    for thing in shared:
        assert built[thing] == held[thing], thing


def methods(source):
    """Every method of every class, and every function, by name, without docstrings."""
    found = {}
    for node in without_docstrings(source).body:
        if isinstance(node, ast.ClassDef):
            parts = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            found |= {f"{node.name}.{part.name}": part for part in parts}
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = node
    for part in found.values():
        part.args = ast.parse(f"lambda {', '.join(a.arg for a in part.args.args)}: 0").body[0]
        part.returns = None
    return {name: ast.dump(part) for name, part in found.items()}


def test_what_notebook_04_extends_is_what_the_package_holds():
    """Bodies and argument names; the notebook annotates with classes of its own."""
    built = methods(code_in("04_kv_cache"))
    reordered = methods(code_in("05_is_it_right"))["ReorderedCache.reorder"]
    built["GrowingCache.reorder"] = reordered
    held = {}
    for room in ("attention", "transformer", "generation", "kv_cache"):
        held |= methods((ROOT / "course_utils" / f"{room}.py").read_text(encoding="utf-8"))
    for thing in (
        "GrowingCache.__init__",
        "GrowingCache.length",
        "GrowingCache.append",
        "GrowingCache.nbytes",
        "GrowingCache.reorder",
        "PreallocatedCache.__init__",
        "PreallocatedCache.length",
        "PreallocatedCache.append",
        "PreallocatedCache.nbytes",
        "MultiHeadAttention.forward",
        "DecoderLayer.forward",
        "DecoderOnlyTransformer.embed",
        "DecoderOnlyTransformer.forward",
        "decode_loop",
    ):
        assert built[thing] == held[thing], thing


NOTEBOOKS = ROOT / "notebooks"
WORKED = sorted([*NOTEBOOKS.glob("0[1-9]_*.ipynb"), *NOTEBOOKS.glob("going_further/*.ipynb")])


@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_every_exercise_has_a_card_hints_a_solution_and_a_check(path):
    cells = nbformat.read(path, as_version=4).cells
    solutions = [i for i, c in enumerate(cells) if c.metadata.get("nbgrader", {}).get("solution")]
    assert 3 <= len(solutions) <= 10
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
