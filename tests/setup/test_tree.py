"""What the README says of the folder is so: the tree, and how long the files are."""

import re
import subprocess

import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "course_utils"
TREE = re.search(r"## What is in here\n\n```\n(.+?)```", README, re.S)[1]


def entries():
    """The paths in the README's tree, folders with a slash at the end."""
    folders = []
    for line in TREE.splitlines():
        indent, name = re.match(r"( *)(\S+)  +\S", line).groups()
        folders = [*folders[: len(indent) // 4], name.rstrip("/")]
        yield "/".join(folders) + "/" * name.endswith("/")


def committed():
    """Files that git knows, as paths from the root; None where there is no git."""
    try:
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


@pytest.mark.parametrize("entry", list(entries()))
def test_what_stands_in_the_tree_is_there(entry):
    assert (ROOT / entry).is_dir() == entry.endswith("/")
    assert (ROOT / entry).exists()


@pytest.mark.parametrize(
    "folder", ["", "notebooks/", "course_utils/", "course_utils/going_further/"]
)
def test_what_is_there_stands_in_the_tree(folder):
    if (files := committed()) is None:
        pytest.skip("without git, one's own files cannot be told from the course's")
    inside = [path.removeprefix(folder) for path in files if path.startswith(folder)]
    found = {name.split("/")[0] + "/" * ("/" in name) for name in inside}
    found = {name for name in found if not name.startswith((".", "__init__"))}
    if folder == "notebooks/":  # of the notebooks themselves there is a map
        found = {name for name in found if name.endswith("/")}
    listed = {entry.removeprefix(folder) for entry in entries() if entry.startswith(folder)}
    assert found <= listed


@pytest.mark.parametrize("room", ["evaluation", "watch", "checks", "plots"])
def test_contributing_says_what_each_file_of_a_room_is_for(room):
    """Those of one notebook, which are called nNN_, are named together."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = [path.name for path in (PACKAGE / room).glob("[a-z]*.py")]
    files = [name for name in files if not re.match(r"n\d\d_", name)]
    assert [name for name in files if not re.search(rf"[`/]{name}`", text)] == []


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_file_is_longer_than_300_lines(path):
    assert lines(path) <= 300


def test_what_is_to_be_read_has_at_most_2000_lines():
    assert sum(map(lines, PACKAGE.glob("*.py"))) <= 2000
