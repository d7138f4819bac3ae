"""The Dockerfile: what it starts from, who runs it, and what it starts. Nothing is built here."""

import json
import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

pytestmark = pytest.mark.authors

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if line and line[0] != "#"]


def patterns(name):
    """The lines of an ignore file, without what says at which depth they hold."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line.removeprefix("**/").strip("/") for line in lines if line and line[0] != "#"}


def test_it_starts_from_one_version_of_a_python_that_the_course_runs_on():
    (word, image), *others = STEPS
    minor = int(re.fullmatch(r"python:3\.(\d+)\.\d+-slim-[a-z]+", image)[1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest, too_new = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    assert word == "FROM" and int(oldest) <= minor < int(too_new)
    assert "FROM" not in [word for word, _ in others]


def test_everything_but_the_user_is_made_and_run_by_a_user_who_is_not_root():
    words = [word for word, _ in STEPS]
    user = words.index("USER")
    name = STEPS[user][1]
    assert words.count("USER") == 1 and name not in ("root", "0")
    assert STEPS[1:user] == [["RUN", f"useradd --create-home {name}"]]
    (copied,) = [text for word, text in STEPS if word == "COPY"]
    assert copied == f"--chown={name}:{name} . ."
    (folder,) = [text for word, text in STEPS if word == "WORKDIR"]
    assert STEPS[user + 1] == ["RUN", f"mkdir {folder}"] and folder.startswith(f"/home/{name}/")
    assert words.index("COPY") > words.index("WORKDIR") > user


def test_it_sets_up_once_and_its_command_is_the_lab_on_the_port_that_it_names():
    commands = [text for word, text in STEPS if word == "RUN"]
    assert commands[-1].startswith("python3 course.py setup --cpu")
    (port,) = [text for word, text in STEPS if word == "EXPOSE"]
    last, text = STEPS[-1]
    assert last == "CMD"
    expected = ["python3", "course.py", "lab", "--ip", "0.0.0.0", "--port", port]
    assert json.loads(text) == expected
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (TEXT, readme):
        assert f"-p {port}:{port}" in page and "docker build -t kv-cache-course ." in page


def test_the_image_gets_what_git_knows_and_nothing_else():
    assert patterns(".dockerignore") == patterns(".gitignore") | {".git"}
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("without git, one's own files cannot be told from the course's")
    for path in done.stdout.splitlines():
        parts = Path(path).parts
        left_out = {p for p in patterns(".dockerignore") for part in parts if fnmatch(part, p)}
        assert not left_out, path
