"""The hand-out: one notebook's exercises in a folder and a zip, and nothing that answers them.

Its `course_utils` has three kinds of modules. Those that earlier notebooks built are there to be
read, as those notebooks built them. Those that answer nothing are there as they are. All others
stay in one packed file, from which thin modules bind the names that this notebook uses: see
`sealed.py`.

A hand-out holds the answers to earlier notebooks, so each is given out when the one before has been
collected.
"""

import ast
import base64
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from authoring.exercises import student_edition, without_marks

from .graft import BASES, NOTEBOOKS, PACKAGE, ROOT, built

NUMBERS = ("01", "02", "03", "04", "05", "06")
BUILT = {"attention": "01", "transformer": "02", "generation": "03"}
ANSWERS = BASES | {"generation": (*BASES["generation"], "generate", "beam_search")}
AS_IN_THE_COURSE = {
    "stories": "01",
    **dict.fromkeys(("attention", "transformer", "generation", "kv_cache"), "05"),
    **dict.fromkeys(("left_padding", "evaluation"), "06"),
}
LEFT_OUT = {("kv_cache", "05"): "reorder"}  # a method that is an answer to this notebook
NEVER = {"__init__", "__main__", "train"}
OF_THE_SAME_NAME_ONLY = {("benchmark", "token_times")}
LISTS = ("pyproject.toml", "constraints.txt", "environment.yml")
AS_THEY_ARE = ("course.py", "setup/course_setup.py", "setup/lab/overrides.json", *LISTS)
DATA = ("model_state_dict.pt", "data/model_config.json", "data/alt_texts.toml")
TABLES = ("benchmarks/gpu_sweep.csv", "data/cache_mutants.csv")  # what some notebooks read
MUTANTS, THEIR_CODE = "data/cache_mutants.csv", "what"  # in this column one can read answers
IMPORTS = {
    "attention": """
import math

import torch
from torch import Tensor, nn
""",
    "transformer": """
from typing import Any

import torch
from torch import Tensor, nn

from .attention import MultiHeadAttention
""",
    "generation": """
import math

import torch
from torch import Tensor, nn

from .attention import softmax
""",
}
ARCHIVED = (1980, 1, 1, 0, 0, 0)


def release(notebook: str, out: Path) -> Path:
    """Write the hand-out of notebook "01" to "06" into `out`, and a zip of it; return the folder.

    Raises ValueError for another notebook, or if the notebook uses a name that is an answer to it;
    FileExistsError if what is in the way is not an untouched hand-out.
    """
    stem = _worked(notebook).stem
    folder, archive = out / f"kv-cache-{stem}", out / f"kv-cache-{stem}.zip"
    _refuse_to_replace(folder, archive)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=out) as temporary:
        made = Path(temporary) / folder.name
        _write(made, notebook)
        packed = _pack(made)
        if folder.exists():
            folder.rename(Path(temporary) / "replaced")
        made.rename(folder)
        packed.replace(archive)
    return folder


def _worked(notebook: str) -> Path:
    found = sorted(NOTEBOOKS.glob(f"{notebook}_*.ipynb")) if notebook in NUMBERS else []
    if not found:
        raise ValueError(f"There is no notebook {notebook!r}: choose from {', '.join(NUMBERS)}.")
    return found[0]


def _refuse_to_replace(folder: Path, archive: Path) -> None:
    if not folder.exists() and not archive.exists():
        return
    if not folder.is_dir() or not archive.is_file() or _content(folder) != _unpacked(archive):
        raise FileExistsError(
            f"{folder} and {archive.name} are in the way. They are replaced only if they are a "
            "hand-out in which nothing was changed: move them away, or choose another folder."
        )


def _content(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their names in its archive."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in files}


def _unpacked(archive: Path) -> dict[str, bytes] | None:
    try:
        with zipfile.ZipFile(archive) as file:
            return {name: file.read(name) for name in file.namelist()}
    except zipfile.BadZipFile:
        return None


def _pack(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in _content(folder).items():
            entry = zipfile.ZipInfo(name, ARCHIVED)
            entry.external_attr = 0o644 << 16
            file.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return archive


def _write(folder: Path, notebook: str) -> None:
    """All files of a hand-out."""
    worked = _worked(notebook)
    exercises = student_edition(nbformat.read(worked, as_version=4), handout=True)
    used = used_names(exercises)
    _write_package(folder / "course_utils", notebook, used)
    data = list(DATA)
    if "load_test_cases" in used.get("evaluation", ()):
        data.append("data/test_cases.json")
    text = "".join(cell.source for cell in exercises.cells)
    data += [table for table in TABLES if Path(table).name in text]
    for name in [*AS_THEY_ARE, *data]:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    if MUTANTS in data:
        table = pd.read_csv(ROOT / MUTANTS).drop(columns=THEIR_CODE)
        table.to_csv(folder / MUTANTS, index=False, lineterminator="\n")
    path = folder / "notebooks" / worked.name
    path.parent.mkdir()
    _keep_links_that_lead_somewhere(exercises, path)
    nbformat.write(exercises, path)
    (folder / "README.md").write_text(_readme(exercises, worked.name), encoding="utf-8")


def _readme(exercises: NotebookNode, file: str) -> str:
    title = exercises.cells[0].source.splitlines()[0].removeprefix("# ")
    rooms = [f"`{room}.py`" for room in _built_before(file[:2])]
    text = (Path(__file__).parent / "handout_README.md").read_text(encoding="utf-8")
    return text.format(title=title, file=file, built=", ".join(rooms) or "nothing yet")


def _keep_links_that_lead_somewhere(exercises: NotebookNode, path: Path) -> None:
    """Links to files that are not in the hand-out, or not to be read in it, become plain text."""

    def leads(target: str) -> bool:
        file = path.parent / target.partition("#")[0]
        readable = file.is_file() and b"from .sealed import" not in file.read_bytes()
        return ":" in target or target.startswith("#") or readable

    for cell in exercises.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(
                r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)",
                lambda link: link[0] if leads(link[2]) else link[1],
                cell.source,
            )


def used_names(notebook: NotebookNode) -> dict[str, set[str]]:
    """The names that a notebook's code takes from each module of `course_utils`."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    used, modules = {}, {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "course_utils":
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("course_utils."):
            room = node.module.removeprefix("course_utils.")
            used.setdefault(room, set()).update(alias.name for alias in node.names)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in modules:
            used.setdefault(modules[node.value.id], set()).add(node.attr)
    return used


def answer_names(notebook: str) -> set[str]:
    """The names that the solutions of a notebook define."""
    cells = nbformat.read(_worked(notebook), as_version=4).cells
    solutions = [c.source for c in cells if c.metadata.get("nbgrader", {}).get("solution")]
    return {name for source in solutions for name in _defined(source)}


def _defined(source: str) -> Iterator[str]:
    return (node.name for node in ast.parse(source).body if hasattr(node, "name"))


def _write_package(folder: Path, notebook: str, used: dict[str, set[str]]) -> None:
    folder.mkdir(parents=True)
    shutil.copyfile(PACKAGE / "__init__.py", folder / "__init__.py")
    shutil.copyfile(Path(__file__).parent / "sealed.py", folder / "sealed.py")
    later = set().union(*(answer_names(n) for n in NUMBERS if n >= notebook))
    offered = {}
    for room in sorted({*used, *_built_before(notebook)}):
        source = _readable(room, notebook)
        missing = sorted(used.get(room, set()) - set(_bound(source, (PACKAGE / room).is_dir())))
        given_away = [
            name for name in missing if name in later and (room, name) not in OF_THE_SAME_NAME_ONLY
        ]
        if given_away:
            raise ValueError(
                f"Notebook {notebook} uses {', '.join(given_away)} of course_utils.{room}, which a "
                "student has yet to write. Let it use its own."
            )
        if missing:
            offered[room] = missing
            source = _with_sealed(source, room, missing)
        if (PACKAGE / room).is_dir() and not missing:
            shutil.copytree(PACKAGE / room, folder / room, ignore=shutil.ignore_patterns("__py*"))
        else:
            (folder / f"{room}.py").write_text(source, encoding="utf-8")
    (folder / "sealed.bin").write_bytes(_sealed(offered))


def _built_before(notebook: str) -> list[str]:
    """The modules that a student may read, whether the notebook uses them or not."""
    given = [room for room, number in AS_IN_THE_COURSE.items() if "01" < number <= notebook]
    return given or [room for room, number in BUILT.items() if number < notebook]


def _readable(room: str, notebook: str) -> str:
    """The part of a module that the student may read; a docstring if it is all sealed."""
    if AS_IN_THE_COURSE.get(room, "99") <= notebook:
        source = _file(room).read_text(encoding="utf-8")
        return _without(source, LEFT_OUT.get((room, notebook)))
    if BUILT.get(room, "99") < notebook:
        source = without_marks(built(room, ANSWERS[room]))
        return f'"""Built in notebook {BUILT[room]}."""\n{IMPORTS[room]}\n\n{source}\n'
    return '"""The names that the notebook uses; what is behind them is sealed."""\n'


def _file(room: str) -> Path:
    package = PACKAGE / room / "__init__.py"
    return package if package.exists() else PACKAGE / f"{room}.py"


def _without(source: str, method: str | None) -> str:
    """A module's source without the methods of this name."""
    lines = source.splitlines(keepends=True)
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    for part in reversed([part for node in classes for part in node.body]):
        if method and getattr(part, "name", "") == method:
            del lines[part.lineno - 1 : part.end_lineno + 1]
    return "".join(lines)


def _bound(source: str, passes_on: bool = False) -> Iterator[str]:
    """All names that a module's source defines at its top; a package's also passes on others'."""
    for node in ast.parse(source).body:
        if passes_on and isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        if hasattr(node, "name"):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _with_sealed(source: str, room: str, names: list[str]) -> str:
    """A module's source with sealed names bound at its end."""
    first, _, rest = source.partition("\n\n\n")
    head = first.rstrip("\n") + ("\n" if rest else "\n\n") + "from .sealed import offer as _offer\n"
    body = f"\n\n{rest.rstrip()}\n\n" if rest else ""
    bindings = "".join(f'\n{name} = _offer("{room}", "{name}")' for name in names)
    return head + body + bindings + "\ndel _offer\n"


def _sealed(offered: dict[str, list[str]]) -> bytes:
    files = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
    names = {path: ".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    sources = {
        name: (PACKAGE / path).read_text(encoding="utf-8")
        for path, name in names.items()
        if name not in NEVER and path.parts[0] != "going_further"
    }
    content = json.dumps({"offered": offered, "sources": sources}, sort_keys=True)
    return base64.b85encode(zlib.compress(content.encode(), 9))
