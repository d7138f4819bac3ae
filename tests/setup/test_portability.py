"""The lists of packages, the workflow and the citation, as other machines and people read them.

The test that asks PyPI is marked `maintain`: python -m pytest -m maintain tests
"""

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

from authoring.site.__main__ import SITE

pytestmark = pytest.mark.authors

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAD = "#    uv pip compile "


def uv_command(constraints: str) -> list[str]:
    """The words after `uv` of the command that stands in the head of constraints.txt."""
    [line] = [line for line in constraints.splitlines()[:3] if line.startswith(HEAD)]
    return line.removeprefix("#").split()[1:]


def test_the_pins_are_made_of_every_extra_and_the_oldest_python():
    command = uv_command((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    extras = {command[i + 1] for i, word in enumerate(command) if word == "--extra"}
    assert extras == set(PROJECT["optional-dependencies"])
    oldest = command[command.index("--python-version") + 1]
    assert PROJECT["requires-python"].startswith(f">={oldest},")
    assert "--universal" in command
    assert command[-3:] == ["-o", "constraints.txt", "pyproject.toml"]


@pytest.mark.maintain
def test_the_pins_are_what_uv_makes_of_pyproject(tmp_path):
    """Pins that still fit stay; it fails if pyproject.toml changed and constraints.txt did not."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    path = tmp_path / "constraints.txt"
    before = path.read_text(encoding="utf-8")
    command = [sys.executable, "-m", "uv", *uv_command(before)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    after = path.read_text(encoding="utf-8")
    changed = set(before.splitlines()) ^ set(after.splitlines())
    assert after == before, f"run the command in the head of constraints.txt: {sorted(changed)}"


def workflow(name="test"):
    """A workflow as data; YAML 1.1 reads its key `on` as the word for true."""
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def test_the_workflow_runs_on_three_systems_and_two_pythons():
    matrix = workflow()["jobs"]["test"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert len(matrix["python"]) == 2
    oldest, too_new = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    for version in matrix["python"]:
        assert isinstance(version, str), "3.10 without quotes would be 3.1"
        assert int(oldest) <= int(version.removeprefix("3.")) < int(too_new)


@pytest.mark.parametrize("name", ["test", "pages"])
def test_a_workflow_may_only_read_and_names_its_actions_versions(name):
    assert workflow(name)["permissions"] == {"contents": "read"}
    steps = [step for job in workflow(name)["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v1"))


def test_the_workflow_calls_the_commands_of_the_course():
    commands = [step["run"] for step in workflow()["jobs"]["test"]["steps"] if "run" in step]
    assert "python course.py test --cpu" in commands
    assert [step["run"] for step in workflow()["jobs"]["gate"]["steps"] if "run" in step] == [
        ".ci/run"
    ]
    assert os.access(ROOT / ".ci" / "run", os.X_OK) or os.name == "nt"


def test_the_site_is_published_only_where_the_owner_wants_it_and_made_as_the_gate_makes_it():
    pages = workflow("pages")
    assert set(pages[True]) == {"push", "workflow_dispatch"}
    build, deploy = pages["jobs"]["build"], pages["jobs"]["deploy"]
    assert build["if"].split(" && ")[0] == "vars.PUBLISH_SITE == 'yes'"
    assert build["if"].endswith("github.ref_name == github.event.repository.default_branch")
    commands = [step["run"] for step in build["steps"] if "run" in step]
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands == ["python3 course.py site"]
    assert f"{commands[0]} || status=1" in gate
    index = workflow()["jobs"]["gate"]["env"]
    assert build["env"] == index  # PyTorch without CUDA, as there
    upload = build["steps"][-1]
    assert upload["uses"].startswith("actions/upload-pages-artifact@")
    assert upload["with"] == {"path": SITE.relative_to(ROOT).as_posix()}
    assert deploy["needs"] == "build"
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}
    assert deploy["environment"]["name"] == "github-pages"
    [step] = deploy["steps"]
    assert step["uses"].startswith("actions/deploy-pages@")
    assert step["id"] in deploy["environment"]["url"]


def tracked() -> list[str]:
    """The files of the project as git lists them; without git, those that are here."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        pytest.skip("this is no checkout")
    return done.stdout.rstrip("\0").split("\0")


RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
LONGEST = 120  # of the 260 characters that Windows gives a path, with room for the course's folder


def unfit(paths: list[str]) -> list[str]:
    """What a Windows or a Mac with its usual file system cannot check out side by side."""
    parts = {"/".join(path.split("/")[:n]) for path in paths for n in range(1, path.count("/") + 2)}
    names = {part: part.rpartition("/")[2] for part in parts}
    bad = {part for part, name in names.items() if re.search(r'[<>:"\\|?*\x00-\x1f]|[ .]$', name)}
    bad |= {part for part, name in names.items() if RESERVED.match(name) or not name.isascii()}
    bad |= {part for part in parts if len(part) > LONGEST}
    seen = Counter(part.casefold() for part in parts)
    return sorted(bad | {part for part in parts if seen[part.casefold()] > 1})


def test_every_file_can_be_checked_out_on_windows_and_on_a_mac():
    for wrong in ("a:b", "what?", "aux.py", "dir /x", "x.", "é.md", "x" * 121):
        assert unfit([wrong, "fine.py"]), wrong
    assert unfit(["a/One.py", "a/one.py"]) == ["a/One.py", "a/one.py"]
    assert unfit(["A/one.py", "a/two.py"]) == ["A", "a"]
    assert unfit(tracked()) == []


# What Windows has not or what does something else there: its parents are never replaced when they
# end, and these two clocks go on in steps of 16 ms.
NOT_ON_WINDOWS = {
    "fcntl", "grp", "pty", "pwd", "resource", "termios", "os.fork", "os.getpgid", "os.getppid",
    "os.getuid", "os.killpg", "os.mkfifo", "os.sched_getaffinity", "os.setsid", "os.symlink",
    "os.uname", "signal.SIGHUP", "signal.SIGKILL", "signal.alarm", "signal.setitimer",
    "time.monotonic", "time.time", "time.tzset",
}  # fmt: skip


WORDS = {name.rpartition(".")[2] for name in NOT_ON_WINDOWS} | {"read_text", "write_text"}
SUSPECTS = re.compile(rf"\b({'|'.join(sorted(WORDS))})\b")


def for_one_system(source: str) -> list[str]:
    """What of a program works on Linux and Macs only, or depends on a system's encoding."""
    if not SUSPECTS.search(source.replace("import time\n", "")):
        return []
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place = {"read_text": 0, "write_text": 1}.get(node.func.attr, len(node.args) - 1)
            named = "encoding" in {keyword.arg for keyword in node.keywords}
            if not named and len(node.args) <= place:
                found.append(f"{node.func.attr} without an encoding")
        elif isinstance(node, ast.Constant) and "import " in str(node.value):
            with contextlib.suppress(SyntaxError):  # a program for another process
                found += for_one_system(node.value)
    return [name for name in found if name in NOT_ON_WINDOWS or str(name).endswith("an encoding")]


def programs() -> dict[str, str]:
    """What students and readers run, by file and cell: all but grading, which needs Linux."""
    runners = ("tests/run_all.py", "tests/again.py")
    rooms = ("course_utils/", "authoring/", "setup/", "course.py", *runners)
    found = {
        path: (ROOT / path).read_text(encoding="utf-8")
        for path in tracked()
        if path.startswith(rooms) and path.endswith(".py")
    }
    for path in (path for path in tracked() if path.endswith(".ipynb") and "exercises" not in path):
        for cell in json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                found[f"{path}, {cell['id']}"] = "".join(cell["source"])
    return found


def test_what_students_run_is_for_every_system():
    for wrong in (
        "from os import getppid",
        "'import os; os.getppid()'",
        "p.read_text()",
        "p.write_text(x)",
    ):
        assert for_one_system(wrong), wrong
    for right in ("p.read_text('utf-8')", "p.write_text(x, encoding='utf-8')", "os.getpid()"):
        assert not for_one_system(right), right
    checked = programs()
    assert len(checked) > 300
    for where, source in checked.items():
        assert for_one_system(source) == [], where


def test_git_keeps_the_line_ends_as_they_are_on_every_system():
    paths = [path for path in tracked() if (ROOT / path).is_file()]
    asked = "\0".join(paths)
    command = ["git", "check-attr", "-z", "--stdin", "text", "eol"]
    done = subprocess.run(command, cwd=ROOT, input=asked, capture_output=True, encoding="utf-8")
    words = done.stdout.split("\0")
    found = {(path, name): value for path, name, value in zip(*[iter(words)] * 3, strict=False)}
    for path in paths:
        is_text = b"\0" not in (ROOT / path).read_bytes()[:8000]
        assert found[path, "text"] == ("auto" if is_text else "unset"), path
        assert not is_text or found[path, "eol"] == "lf", path


def test_citation_and_licences_agree_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["title"] in PROJECT["description"]
    assert set(citation["license"]) == {"MIT", "CC-BY-4.0"}
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    text = (ROOT / "LICENSE-TEXT").read_text(encoding="utf-8")
    assert "https://creativecommons.org/licenses/by/4.0/" in text


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", text, re.MULTILINE)[0] == PROJECT["version"]
