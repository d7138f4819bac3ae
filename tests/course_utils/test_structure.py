"""The package's rooms: who may import whom. All arrows point towards the model."""

import ast
import graphlib
import subprocess
import sys

import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

PACKAGE = ROOT / "course_utils"
# The model comes after what it is made of, though notebook 02 builds it before 03 and 04.
ORDER = [
    "attention",
    "generation",
    "kv_cache",
    "transformer",
    "left_padding",
    "counting",
    "benchmark",
]
CHAPTERS = ["speed", "flash", "smaller", "serving", "parallel", "gpt2", "wild"]
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """How a file is imported, without `course_utils.`: "attention", "plots", "plots.look"."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


ROOMS = {name_of(path) for path in FILES}


def relative_imports(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


def imports(path):
    """The files of the package that a file imports, by name."""
    found = set()
    for node in relative_imports(ast.parse(path.read_text(encoding="utf-8"))):
        parents = path.relative_to(PACKAGE).parts[: -node.level]
        base = [*parents, *(node.module.split(".") if node.module else [])]
        for alias in node.names:
            inner = ".".join([*base, alias.name])
            found.add(inner if inner in ROOMS else ".".join(base))
    return found


def chapter_of(room):
    """The position of a room's chapter in the course; 0 for what belongs to none, but the command
    line: that comes last."""
    if room == "__main__":
        return len(CHAPTERS)
    parts = room.split(".")
    return CHAPTERS.index(parts[1]) + 1 if parts[0] == "going_further" and parts[1:] else 0


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_earlier_rooms(room):
    assert imports(PACKAGE / f"{room}.py") <= set(ORDER[: ORDER.index(room)])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_import_each_other_at_the_top(path):
    """An import inside a function would hide an arrow that points the wrong way."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [node for node in relative_imports(tree) if node not in tree.body] == []


def test_no_room_imports_itself_by_way_of_others():
    graph = {name_of(path): imports(path) for path in FILES}
    assert graph["benchmark"] == {"counting", "generation", "kv_cache"}
    graphlib.TopologicalSorter(graph).prepare()
    graph["attention"].add("benchmark")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_chapter_imports_only_the_core_and_earlier_chapters(path):
    here = chapter_of(name_of(path))
    assert all(chapter_of(room) <= here for room in imports(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_imports_the_command_line_or_the_grading(path):
    source = path.read_text(encoding="utf-8")
    assert "__main__ import" not in source
    assert "grading" not in source


@pytest.mark.parametrize("number", range(1, len(ORDER)))
def test_a_room_works_without_the_later_ones(number, tmp_path):
    alone(tmp_path, {name: (PACKAGE / f"{name}.py").read_bytes() for name in ORDER[:number]})


@pytest.mark.instructor
@pytest.mark.parametrize("notebook", ["02", "03", "04", "05", "06"])
def test_what_a_student_has_built_works_without_the_later_rooms(notebook, tmp_path):
    """The rooms that the hand-out of a notebook gives to read, as the earlier notebooks built them.

    Before 05 nobody has a cache: the model in them imports none.
    """
    from grading import release

    given = [room for room in release._built_before(notebook) if room in ORDER]
    assert ("kv_cache" in given) == (notebook >= "05")
    alone(tmp_path, {room: release._readable(room, notebook).encode() for room in given})


def alone(folder, rooms):
    """Import rooms from a package that has no others."""
    package = folder / "course_utils"
    package.mkdir()
    for name, source in {"__init__": b"", **rooms}.items():
        (package / f"{name}.py").write_bytes(source)
    command = [sys.executable, "-c", f"from course_utils import {', '.join(rooms)}"]
    subprocess.run(command, cwd=folder, check=True)
