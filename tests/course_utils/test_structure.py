"""The package's rooms keep to the order in which the course builds them."""

import ast
import subprocess
import sys

import pytest

from course_utils.transformer import ROOT

PACKAGE = ROOT / "course_utils"
ORDER = ["attention", "transformer", "generation", "kv_cache", "benchmark"]
IMPORTED_WHEN_CALLED = {("transformer", "generation"), ("transformer", "kv_cache")}


def imports(module):
    """Rooms that a room imports: at the top of the file, and inside functions."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    checked_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    top, later = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node not in checked_only:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            (top if node in tree.body else later).update(names)
    return top, later


@pytest.mark.parametrize("module", ORDER)
def test_a_room_imports_only_earlier_rooms(module):
    top, later = imports(module)
    assert top & set(ORDER) <= set(ORDER[: ORDER.index(module)])
    assert {(module, name) for name in later} <= IMPORTED_WHEN_CALLED


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_imports_the_command_line_or_the_grading(path):
    source = path.read_text(encoding="utf-8")
    assert "__main__ import" not in source
    assert "grading" not in source


@pytest.mark.parametrize("number", range(1, len(ORDER)))
def test_a_room_works_without_the_later_ones(number, tmp_path):
    """What a student has after notebook N, without the files of the notebooks after it."""
    package = tmp_path / "course_utils"
    package.mkdir()
    for name in ["__init__", *ORDER[:number]]:
        (package / f"{name}.py").write_bytes((PACKAGE / f"{name}.py").read_bytes())
    command = [sys.executable, "-c", f"from course_utils import {', '.join(ORDER[:number])}"]
    subprocess.run(command, cwd=tmp_path, check=True)
