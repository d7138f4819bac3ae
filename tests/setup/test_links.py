"""`course.py links` writes the address of a copy everywhere, and nothing else.

It runs in a folder with a copy of what it reads and writes.
"""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import nbformat
import pytest

from authoring import COLAB

pytestmark = pytest.mark.authors

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "INSTRUCTORS.md")
READ = ("course.py", "setup/course_setup.py", "setup/links.py", *PAGES)
NOTEBOOKS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "notebooks").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
NUMBERED = [name for name in NOTEBOOKS if re.match(r"\d\d_", name.rpartition("/")[2])]
ADDRESS = re.compile(r"https?://[^\s)\"]+")
PLACEHOLDER = re.compile(r"\b(OWNER|REPO|HUB|BRANCH)\b")


class Copy:
    """The files that `links` reads and writes, in a folder of their own."""

    def __init__(self, path: Path):
        self.path = path
        for name in (*READ, *NOTEBOOKS):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, path / name)

    def links(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(self.path / "course.py"), "links", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def text(self, name: str) -> str:
        return (self.path / name).read_bytes().decode("utf-8")

    def texts(self) -> dict[str, str]:
        """All files as they are, by their names."""
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes().decode("utf-8")
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }


@pytest.fixture(scope="module")
def ada(tmp_path_factory):
    """A copy that is called ada/kv-course."""
    copy = Copy(tmp_path_factory.mktemp("ada"))
    copy.done = copy.links("ada/kv-course")
    assert copy.done.returncode == 0, copy.done.stderr
    return copy


@pytest.fixture(scope="module")
def bob(tmp_path_factory):
    """A copy that is called bob/a.course-2, on another branch and beside a hub."""
    copy = Copy(tmp_path_factory.mktemp("bob"))
    done = copy.links("bob/a.course-2", "--branch", "autumn", "--hub", "https://hub.example.org/")
    assert done.returncode == 0, done.stderr
    return copy


def without_links(text: str) -> dict:
    """A notebook without what `links` adds, wherever it was linked before."""
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell.get("id") != COLAB]
    first = "".join(cells[0]["source"])
    first = re.sub(r">\n> Open in \[Colab\].*\n|> Open in \[Colab\].*\n\n", "", first)
    return notebook | {"cells": [cells[0] | {"source": first}, *cells[1:]]}


def test_it_sets_up_nothing_and_names_what_it_changed(ada):
    assert not (ada.path / ".venv").exists()
    names = {line for line in ada.done.stdout.splitlines() if line.endswith((".md", ".ipynb"))}
    assert names <= {*PAGES, *NUMBERED}
    for name, text in ada.texts().items():
        assert (text != (ROOT / name).read_bytes().decode("utf-8")) == (name in names), name
    assert "branch main of github.com/ada/kv-course" in ada.done.stdout


def test_no_placeholder_is_left(ada, bob):
    for copy, name in ((ada, "ada/kv-course"), (bob, "bob/a.course-2")):
        texts = copy.texts()
        for file in (*PAGES, *NUMBERED):
            assert not PLACEHOLDER.search(texts[file]), file
            assert name in texts[file], file


@pytest.mark.parametrize("name", NUMBERED)
def test_each_notebook_opens_by_links_to_itself_and_its_cell_names_it(ada, name):
    notebook = nbformat.reads(ada.text(name), as_version=4)
    nbformat.validate(notebook)
    cells = notebook.cells
    (line,) = re.findall(r"^> Open in .*$", cells[0].source, re.M)
    assert ADDRESS.findall(line) == [
        f"https://colab.research.google.com/github/ada/kv-course/blob/main/{name}",
        f"https://mybinder.org/v2/gh/ada/kv-course/main?urlpath=lab/tree/{name}",
        f"https://github.com/ada/kv-course/blob/main/{name}",
    ]
    assert cells[1].id == COLAB and f'"{name}"' in cells[1].source
    assert "--branch=main" in cells[1].source
    assert [cell.id for cell in cells].count(COLAB) == 1


def test_nothing_else_changes(ada):
    after = ada.texts()
    for name in NOTEBOOKS:
        before = (ROOT / name).read_bytes().decode("utf-8")
        assert without_links(after[name]) == without_links(before), name
        gone = set(before.splitlines()) - set(after[name].splitlines())
        assert len(gone) <= 5, name  # of an earlier name: the file is written as it was
        if name not in NUMBERED:
            assert after[name] == before
    cut = re.compile(r"(<!-- links: \w+ -->\n).*?(<!-- end of links -->)", re.S)
    for name in PAGES:
        before = (ROOT / name).read_text(encoding="utf-8")
        assert cut.sub(r"\1\2", after[name]) == cut.sub(r"\1\2", before)
    for name in READ[:3]:
        assert after[name] == (ROOT / name).read_bytes().decode("utf-8")


def test_a_second_time_changes_nothing_and_another_name_leaves_nothing_of_the_first(ada, bob):
    before = ada.texts()
    again = ada.links("https://github.com/ada/kv-course.git")
    assert again.stdout.startswith("0 files changed") and ada.texts() == before
    ada.links("bob/a.course-2", "--branch", "autumn", "--hub", "https://hub.example.org")
    assert ada.texts() == bob.texts()
    ada.links("ada/kv-course")
    assert ada.texts() == before


def test_a_hub_gets_a_whole_link_and_without_one_it_is_what_follows_its_address(ada, bob):
    pull = re.compile(r"^  (\S*/hub/user-redirect/git-pull\?\S+)$", re.M)
    (of_ada,) = pull.findall(ada.text("INSTRUCTORS.md"))
    (of_bob,) = pull.findall(bob.text("INSTRUCTORS.md"))
    assert of_ada.startswith("/hub/")
    assert of_bob == (
        "https://hub.example.org/hub/user-redirect/git-pull"
        "?repo=https%3A%2F%2Fgithub.com%2Fbob%2Fa.course-2&branch=autumn"
        "&urlpath=lab%2Ftree%2Fa.course-2%2Fnotebooks%2Fexercises"
    )


def test_every_link_leads_to_a_file_or_folder_of_the_copy(ada):
    found = re.findall(
        r"ada/kv-course/(?:blob/main/|main\?urlpath=lab/tree/)([^\s)\"\\]+)",
        "".join(ada.text(name) for name in (*PAGES, *NUMBERED)),
    )
    assert len(found) > 3 * len(NUMBERED)
    for place in set(found):
        assert (ada.path / place).exists(), place


def test_before_it_was_run_no_link_has_a_placeholder():
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"\]\([^)]*(OWNER|HUB)", text)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ada"],
        ["ada/kv/course"],
        ["ada/kv course"],
        ["https://example.org/ada/kv-course"],
        ["ada/kv-course", "--branch", 'x"; import os'],
        ["ada/kv-course", "--hub", "hub.example.org"],
    ],
)
def test_what_is_no_name_is_refused_and_nothing_changes(ada, arguments):
    before = ada.texts()
    refused = ada.links(*arguments)
    assert refused.returncode == 2
    assert "usage: course.py links" in refused.stderr and "Traceback" not in refused.stderr
    assert ada.texts() == before


def test_the_cell_does_nothing_where_there_is_no_colab(ada, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(subprocess, "Popen", None)
    paths, folder, said = list(sys.path), Path.cwd(), io.StringIO()
    names, cells = {}, nbformat.reads(ada.text(NUMBERED[0]), as_version=4).cells
    with redirect_stdout(said), redirect_stderr(said):
        exec(cells[1].source, names)
    assert (said.getvalue(), sys.path, Path.cwd()) == ("", paths, folder)
    assert set(names) == {"__builtins__", "sys"}


@pytest.mark.instructor
def test_the_student_edition_of_a_linked_notebook_is_linked_and_a_hand_out_is_not(ada):
    from authoring.exercises import student_edition

    for name in ("02_transformer_block.ipynb", "going_further/11_many_processes.ipynb"):
        text, file = ada.text(f"notebooks/{name}"), name.rpartition("/")[2]
        linked = nbformat.reads(ada.text(f"notebooks/exercises/{file}"), as_version=4)
        made = student_edition(nbformat.reads(text, as_version=4), chapter=name != file)
        assert made == linked, name
    given_out = student_edition(
        nbformat.reads(ada.text("notebooks/02_transformer_block.ipynb"), as_version=4), handout=True
    )
    assert not re.search("colab|kv-course", nbformat.writes(given_out), re.I)
