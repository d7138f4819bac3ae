"""Tests of course.py, of what it starts, of the lists of packages, and of environment.yml.

Most of them run a copy of course.py in a folder of its own, beside small programs that take the
place of venv, pip, pytest and the training, write down how they were called, and end as told.
"""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import venv
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_notebooks import write_notebook

pytestmark = pytest.mark.authors

ROOT = Path(__file__).resolve().parents[2]
FILES = ("course.py", "setup/course_setup.py")
RUNNERS = ("tests/run_all.py", "tests/again.py")
SOURCES = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
PIP = ["install", "-c", "constraints.txt", "-e", ".[test]"]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU = ["install", "-c", "constraints.txt", "--no-deps", "--index-url", CPU_INDEX, "torch"]
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one build only")

STAND_IN = """
import json, os, sys, time

name = "NAME"
with open("calls.txt", "a") as file:
    variables = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "JUPYTER_PREFER_ENV_PATH")}
    print(json.dumps([name, sys.argv[1:], variables]), file=file)
try:
    if name == os.environ.get("SLOW"):
        print("ready", flush=True)
        for _ in range(600):  # not one long sleep: a signal just before it would go unnoticed
            time.sleep(0.1)
except KeyboardInterrupt:
    time.sleep(1)
    print("put away", flush=True)
    sys.exit(2 if name == "pytest" else 7)
sys.exit(int(os.environ.get(name.upper() + "_STATUS", 0)))
"""


class Folder:
    """A copy of the course's front door, with stand-ins for all it starts."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()
        for name in ("tests", "setup"):
            (path / name).mkdir()
        for name in (*SOURCES, "pyproject.toml", "constraints.txt", *RUNNERS):
            shutil.copy(ROOT / name, path / name)
        for name in ("venv", "pip", "pytest"):
            (path / f"{name}.py").write_text(STAND_IN.replace("NAME", name))
        (path / "authoring").mkdir()
        (path / "authoring" / "site.py").write_text(STAND_IN.replace("NAME", "site"))
        (path / "course_utils").mkdir()
        (path / "course_utils" / "train.py").write_text(STAND_IN.replace("NAME", "train"))
        (path / "notebooks").mkdir()
        venv.create(path / ".venv", symlinks=os.name != "nt")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.path / "course.py"), *arguments]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Run the copy, from another folder."""
        return subprocess.run(
            self.command(*arguments),
            env=os.environ | variables,
            cwd=self.path.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[list]:
        """What was called since the last time: name, arguments, some environment variables."""
        path = self.path / "calls.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def names(self) -> list[str]:
        return [call[0] for call in self.calls()]


@pytest.fixture
def folder(tmp_path):
    """A copy in which nothing has been set up, in a folder with a space in its name."""
    return Folder(tmp_path / "the course")


@pytest.fixture
def ready(folder):
    """A copy that is set up."""
    assert folder.run("setup").returncode == 0
    folder.calls()
    return folder


def loaded(path: str):
    """A module of the course, loaded without starting anything."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def course():
    return loaded("course.py")


@pytest.fixture
def course_setup():
    return loaded("setup/course_setup.py")


@pytest.fixture
def run_all():
    return loaded("tests/run_all.py")


# The files


@pytest.mark.parametrize("name", SOURCES)
def test_is_short(name):
    assert len(SOURCES[name].splitlines()) < 100


@pytest.mark.parametrize("name", SOURCES)
def test_imports_the_standard_library_only(name):
    imported = set()
    for node in ast.walk(ast.parse(SOURCES[name])):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    imported -= {"setup"} if name == "course.py" else set()
    assert imported <= sys.stdlib_module_names, imported - sys.stdlib_module_names


@pytest.mark.parametrize("minor", [6, 10, 15])
def test_python_of_another_version_is_told_what_to_do(folder, minor):
    if minor < 11:
        ast.parse(SOURCES["course.py"], feature_version=(3, minor))
    program = (
        "import pathlib, runpy, sys\n"
        f"sys.version_info, sys.version = (3, {minor}, 1), '3.{minor}.1 (another one)'\n"
        "sys.argv = ['course.py', 'setup']\n"
        f"runpy.run_path({str(folder.path / 'course.py')!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder.path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "needs Python 3.11 to 3.14" in done.stderr
    assert f"3.{minor}.1." in done.stderr
    assert "https://www.python.org/downloads" in done.stderr


TASKS = ("lab", "test", "train", "site", "links", "setup")


def is_the_usage(text):
    return all(re.search(rf"^  {task} ", text, re.MULTILINE) for task in TASKS)


@pytest.mark.parametrize("arguments", [[], ["labs"], [""]])
def test_unknown_task_gets_the_usage_and_starts_nothing(folder, arguments):
    done = folder.run(*arguments)
    assert done.returncode == 2
    assert done.stdout == "" and is_the_usage(done.stderr)
    assert folder.names() == []


@pytest.mark.parametrize("asks", ["-h", "--help"])
def test_who_asks_for_help_gets_it_and_nothing_is_set_up(folder, asks):
    for task in [[], *([task] for task in TASKS if task != "links")]:
        done = folder.run(*task, asks)
        assert done.returncode == 0
        assert done.stderr == "" and is_the_usage(done.stdout)
    assert folder.names() == []
    assert "links.py" in folder.run("links", asks).stderr  # started, but not in this folder


def test_once_set_up_a_task_gives_its_own_help_and_nothing_is_added(ready):
    assert ready.run("site", "--help").returncode == 0
    assert [call[:2] for call in ready.calls()] == [["site", ["--help"]]]
    assert is_the_usage(ready.run("setup", "--help").stdout)
    assert ready.names() == []


# Setting up


def test_setup_happens_once(folder):
    assert folder.run("setup").returncode == 0
    (name, arguments, _), pip = folder.calls()
    assert (name, arguments) == ("venv", ["--clear", str(folder.path / ".venv")])
    assert pip[:2] == ["pip", PIP]
    assert folder.run("setup").returncode == 0
    assert folder.names() == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_setup_starts_afresh_when_a_list_of_packages_changes(ready, name):
    with open(ready.path / name, "a", encoding="utf-8") as file:
        print("# another line", file=file)
    assert ready.run("setup").returncode == 0
    assert ready.names() == ["venv", "pip"]


def test_setup_starts_afresh_when_the_folder_has_moved(ready):
    ready.path = ready.path.rename(ready.path.with_name("moved"))
    assert ready.run("setup").returncode == 0
    assert ready.names() == ["venv", "pip"]


def test_setup_starts_afresh_when_its_python_has_gone(ready, course_setup):
    (ready.path / course_setup.PYTHON.relative_to(ROOT)).unlink()
    assert ready.run("setup", VENV_STATUS="1").returncode == 1
    assert ready.names() == ["venv"]


def test_failing_pip_is_explained_and_repaired(folder):
    done = folder.run("train", PIP_STATUS="1")
    assert done.returncode == 1
    assert done.stderr.startswith("The set-up is not complete: pip's reason is above.")
    for cause in ("needs the network", "no PyTorch for this computer", "make room"):
        assert cause in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert folder.names() == ["venv", "pip"]
    assert folder.run("train").returncode == 0
    assert folder.names() == ["venv", "pip", "train"]


def test_failed_update_is_not_taken_for_the_version_before_it(ready):
    constraints = ready.path / "constraints.txt"
    before = constraints.read_bytes()
    constraints.write_bytes(before + b"# another line")
    assert ready.run("setup", PIP_STATUS="1").returncode == 1
    constraints.write_bytes(before)
    ready.calls()
    assert ready.run("setup").returncode == 0
    assert ready.names() == ["venv", "pip"]


def test_failing_venv_is_explained(folder):
    done = folder.run("lab", VENV_STATUS="1")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 3
    assert "could not make the folder .venv" in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert folder.names() == ["venv"]


def test_setup_says_beforehand_what_it_downloads_and_later_nothing(folder):
    done = folder.run("setup", PIP_STATUS="1")
    [first, *others] = done.stdout.splitlines()
    cuda = sys.platform == "linux"
    size, disk = ("3", "6") if cuda else ("0.4", "2")
    assert f"about {size} GB to download, {disk} on disk" in first
    assert any("--cpu" in line for line in others) == cuda
    assert folder.run("setup").returncode == 0
    done = folder.run("setup")
    assert (done.stdout, done.stderr) == ("", "")


@ON_LINUX
def test_cpu_takes_torch_alone_from_pytorchs_own_index(folder):
    done = folder.run("train", "--cpu", "--fresh")
    calls = [arguments for name, arguments, _ in folder.calls() if name != "venv"]
    assert calls == [CPU, PIP, ["--fresh"]]
    assert "about 0.4 GB to download" in done.stdout
    assert "CUDA" not in done.stdout
    assert folder.run("setup").stdout == ""
    assert folder.names() == []


@ON_LINUX
def test_cpu_is_remembered_when_venv_is_made_anew(folder):
    assert folder.run("setup", "--cpu").returncode == 0
    folder.calls()
    with open(folder.path / "constraints.txt", "a", encoding="utf-8") as file:
        print("# another line", file=file)
    assert folder.run("setup").returncode == 0
    assert [arguments for name, arguments, _ in folder.calls() if name == "pip"] == [CPU, PIP]


@ON_LINUX
def test_without_a_cpu_build_there_is_no_other(folder):
    done = folder.run("setup", "--cpu", PIP_STATUS="1")
    assert done.returncode == 1
    assert "for --cpu also https://download.pytorch.org" in done.stderr
    assert folder.names() == ["venv", "pip"]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_cpu_changes_nothing_where_there_is_one_build(
    course_setup, monkeypatch, tmp_path, platform
):
    commands = []
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(course_setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(course_setup, "STAMP", tmp_path / ".venv" / "stamp")
    monkeypatch.setattr(course_setup, "call", lambda command: commands.append(command) or 0)
    course_setup.setup(cpu=True)
    assert [command[3:] for command in commands[1:]] == [PIP]
    assert not course_setup.STAMP.read_text(encoding="utf-8").endswith("--cpu")


@pytest.mark.parametrize("cuda, root, temporary", [(True, 6, 3), (False, 2, 0.4)])
def test_too_little_room_is_said_before_anything_starts(
    course_setup, monkeypatch, capsys, cuda, root, temporary
):
    free = {}
    monkeypatch.setattr(
        course_setup.shutil,
        "disk_usage",
        lambda folder: type("Usage", (), {"free": free[str(folder)] * 1e9}),
    )
    needed = {str(ROOT): root, course_setup.tempfile.gettempdir(): temporary}
    free.update(needed)
    course_setup.announce(cuda)
    for folder in needed:
        free |= needed | {folder: needed[folder] - 0.1}
        with pytest.raises(SystemExit) as ended:
            course_setup.announce(cuda)
        said = str(ended.value)
        assert f"on the disk of {folder}: the set-up needs about {needed[folder]} GB" in said
        assert f"{needed[folder] - 0.1:.1f} GB are free" in said
        assert "Make room" in said


def test_without_room_nothing_is_started_or_changed(ready):
    with open(ready.path / "setup" / "course_setup.py", "a", encoding="utf-8") as file:
        print("shutil.disk_usage = lambda folder: type('Usage', (), {'free': 1})", file=file)
    with open(ready.path / "constraints.txt", "a", encoding="utf-8") as file:
        print("# another line", file=file)
    done = ready.run("setup")
    assert done.returncode == 1
    assert "There is too little room" in done.stderr
    assert ready.names() == []


def test_a_folder_in_which_nothing_can_be_written_is_explained(folder):
    shutil.rmtree(folder.path / ".venv")
    (folder.path / ".venv").write_text("")  # as root, no folder is read-only
    done = folder.run("setup")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "The folder .venv cannot be made" in done.stderr
    assert "Put the course where you may write." in done.stderr
    assert folder.names() == []


@pytest.mark.skipif(os.name == "nt", reason="kills a process group as POSIX does")
def test_setup_starts_afresh_after_it_was_killed(folder):
    with subprocess.Popen(
        folder.command("setup"),
        env=os.environ | {"SLOW": "pip"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while "ready" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    assert folder.names() == ["venv", "pip"]
    assert folder.run("setup").returncode == 0
    assert folder.names() == ["venv", "pip"]


def test_site_adds_its_packages_once(ready):
    assert ready.run("site", "--out", "a b", SITE_STATUS="4").returncode == 4
    pip, site = ready.calls()
    assert pip[:2] == ["pip", [*PIP[:-1], ".[test,site]"]]
    assert site[:2] == ["site", ["--out", "a b"]]
    assert ready.run("site").returncode == 0
    assert ready.names() == ["site"]


def test_packages_of_the_site_are_added_again_to_a_new_venv(ready):
    assert ready.run("site", PIP_STATUS="1").returncode == 1
    assert ready.names() == ["pip"]
    assert ready.run("site").returncode == 0
    assert ready.names() == ["pip", "site"]
    shutil.rmtree(ready.path / ".venv")
    venv.create(ready.path / ".venv", symlinks=os.name != "nt")
    assert ready.run("site").returncode == 0
    assert ready.names() == ["venv", "pip", "pip", "site"]


# Starting tasks


def test_train_gets_its_arguments_and_returns_its_status(ready):
    assert ready.run("train", "--fresh", "--name=a b", TRAIN_STATUS="3").returncode == 3
    [(name, arguments, variables)] = ready.calls()
    assert (name, arguments) == ("train", ["--fresh", "--name=a b"])
    assert variables["JUPYTER_PREFER_ENV_PATH"] == "1"


def hear_ctrl_c() -> None:
    """Undo what a shell does to the commands that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name == "nt", reason="sends Ctrl-C to a process group as POSIX does")
@pytest.mark.parametrize(
    "task, slow, status, last_words",
    [
        ("train", "train", 7, "put away"),
        ("setup", "pip", 1, "The set-up is not complete"),
        ("test", "pytest", 2, "put away"),
    ],
)
def test_ctrl_c_lets_the_task_end_in_its_own_way(folder, task, slow, status, last_words):
    if task != "setup":
        assert folder.run("setup").returncode == 0
    with subprocess.Popen(
        folder.command(task),
        env=os.environ | {"SLOW": slow},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    ) as process:
        while "ready" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        seen = process.communicate(timeout=20)[0]
    assert process.returncode == status
    assert last_words in seen
    assert "Traceback" not in seen
    folder.calls()
    assert folder.run(task).returncode == 0
    again = {"train": ["train"], "setup": ["venv", "pip"], "test": ["pytest"]}
    assert folder.names() == again[task]


# Running the tests

CHAPTERS = ("speed", "flash", "smaller", "serving", "parallel", "gpt2", "wild")

TIMED = ("code", "print(1)", ["nbval-ignore-output"], "1\n")


@pytest.fixture
def with_notebooks(ready):
    """A copy that is set up and has four notebooks; times are in 03, 06 and 10."""
    folder = ready.path / "notebooks"
    write_notebook(folder / "03_generation.ipynb", TIMED)
    write_notebook(folder / "04_kv_cache.ipynb", ("code", "1", ["hide"], ""))
    write_notebook(folder / "06_latency_sweep.ipynb", TIMED, TIMED)
    write_notebook(folder / "going_further" / "10_many_users.ipynb", TIMED)
    return ready


def test_notebooks_and_tests_run_two_at_a_time_with_one_thread_each(with_notebooks):
    assert with_notebooks.run("test", "-k", "softmax", "-x").returncode == 0
    ((_, given, variables),) = with_notebooks.calls()
    assert ("-n" in given) == (os.cpu_count() > 1)
    assert variables["OMP_NUM_THREADS"] == "1"
    core = [
        f"notebooks/{name}.ipynb" for name in ("03_generation", "04_kv_cache", "06_latency_sweep")
    ]
    chapter = "notebooks/going_further/10_many_users.ipynb"
    assert given[:7] == [*core, chapter, "tests", "--nbval", "--nbval-current-env"]
    assert given[-3:] == ["-k", "softmax", "-x"]


def test_numbers_choose_notebooks_and_their_tests(with_notebooks):
    tests, rooms = with_notebooks.path / "tests", with_notebooks.path / "course_utils"
    (tests / "checks").mkdir()
    for name in ("checks/test_checks_04", "checks/test_checks_06", "test_kv_cache", "test_serving"):
        (tests / f"{name}.py").touch()
    for name in ("test_speculative", "test_attention", "test_notebooks", "test_same_code"):
        (tests / f"{name}.py").touch()
    (rooms / "kv_cache.py").write_text('"""Two caches (notebook 04)."""\n')
    (rooms / "attention.py").write_text('"""Attention (notebook 01), long before notebook 04."""')
    (rooms / "going_further" / "serving").mkdir(parents=True)
    (rooms / "going_further" / "serving" / "speculative.py").write_text(
        '"""Guesses (chapter 10)."""'
    )
    assert with_notebooks.run("test", "4", "10", "-n", "1").returncode == 0
    ((_, given, _),) = with_notebooks.calls()
    assert {word for word in given if word.startswith(("notebooks", "tests"))} == {
        "notebooks/04_kv_cache.ipynb",
        "notebooks/going_further/10_many_users.ipynb",
        "tests/checks/test_checks_04.py",
        "tests/test_kv_cache.py",
        "tests/test_serving.py",
        "tests/test_speculative.py",
        "tests/test_notebooks.py",
        "tests/test_same_code.py",
    }
    assert given[-2:] == ["-n", "1"]


def test_the_count_is_that_of_the_chosen_notebooks(with_notebooks):
    assert "output is not compared: 4\n" in with_notebooks.run("test").stdout
    assert "output is not compared: 2\n" in with_notebooks.run("test", "06").stdout


def test_an_unknown_number_is_told_which_there_are(with_notebooks):
    done = with_notebooks.run("test", "06", "13")
    assert done.returncode != 0
    assert "There is no notebook 13. There are 03, 04, 06, 10." in done.stderr
    assert with_notebooks.names() == []


def test_every_notebook_has_tests_of_its_own(run_all):
    own = dict(zip(("07", "08", "09", "10", "11", "12", "13"), CHAPTERS, strict=True))
    for path in run_all.notebooks():
        number = Path(path).name[:2]
        if number.isdigit() and number != "00":
            tests = run_all.tests_of(number)
            name = own.get(number, f"checks_{number}")
            assert any(test.endswith(f"/test_{name}.py") for test in tests), number
            assert {test.rpartition("/")[2] for test in tests} >= set(run_all.DOCUMENTS)
            assert all((ROOT / test).exists() for test in tests)
    assert "tests/course_utils/test_kv_cache.py" in run_all.tests_of("04")
    assert "tests/course_utils/going_further/test_fast_decode.py" in run_all.tests_of("07")


def test_tests_for_authors_run_where_a_notebook_is_chosen(run_all, monkeypatch):
    runs = []
    monkeypatch.setattr(run_all, "pytest_twice", lambda *words, **_: runs.append(words) or 0)
    assert run_all.main([]) == run_all.main(["4"]) == 0
    everything, one = runs
    assert "-m" not in everything
    marks = one[one.index("-m") + 1]
    assert "authors" not in marks and "thorough" in marks


def test_the_status_is_pytests(with_notebooks):
    assert with_notebooks.run("test", PYTEST_STATUS="3").returncode == 3


def test_cells_that_are_not_compared_are_counted(ready):
    folder = ready.path / "notebooks"
    write_notebook(
        folder / "06_latency_sweep.ipynb",
        ("markdown", "A title", [], ""),
        ("code", "# NBVAL_IGNORE_OUTPUT\nprint(1)", [], "1\n"),
        ("code", ["x = 1\n", "#NBVAL_IGNORE_OUTPUT\n", "x"], [], ""),
        ("code", "print(2)", ["nbval-ignore-output", "hide"], "2\n"),
        ("code", "print(3)", ["hide"], "3\n"),
    )
    for name in ("exercises", ".ipynb_checkpoints"):
        write_notebook(folder / name / "01.ipynb", ("code", "1", ["nbval-ignore-output"], ""))
    assert "output is not compared: 3\n" in ready.run("test").stdout


def test_notebook_with_a_wrong_output_fails(run_all, monkeypatch, tmp_path):
    """Runs the notebooks' part of `course.py test` for real."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "tests").mkdir()
    write_notebook(
        tmp_path / "notebooks" / "06_latency_sweep.ipynb",
        ("code", "import sys; print(sys.version_info[0])", [], "3\n"),
        ("code", "print(6 * 7)", [], "41\n"),
        TIMED,
    )
    runs = []
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "pytest", lambda *arguments, **_: runs.append(arguments) or 0)
    run_all.main(["-q"])
    command = [sys.executable, "-m", "pytest", *runs[0], "-n", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout
    assert "1 failed, 2 passed" in done.stdout


# JupyterLab


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no root user")
@pytest.mark.parametrize("user, allowed", [(0, True), (1000, False)])
def test_lab_allows_root_only_for_root(course, monkeypatch, user, allowed):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert ("--allow-root" in course.lab_command()) == allowed


@pytest.mark.parametrize(
    "platform, variable, browser",
    [
        ("linux", None, False),
        ("linux", "DISPLAY", True),
        ("linux", "WAYLAND_DISPLAY", True),
        ("darwin", None, True),
        ("win32", None, True),
    ],
)
def test_lab_looks_for_a_browser_only_with_a_display(
    course, monkeypatch, platform, variable, browser
):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, ":0")
    assert ("--no-browser" not in course.lab_command()) == browser


def status_of(url: str, deadline: float) -> int:
    """The status of an answer; a server that does not listen yet is asked again until then."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except urllib.error.URLError:  # JupyterLab says its address before it listens
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere this opens the user's browser")
def test_lab_answers_when_its_port_is_taken(course, monkeypatch, tmp_path):
    """Starts JupyterLab for real, from the Python that runs the tests."""
    monkeypatch.setattr(course, "PYTHON", sys.executable)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as taken, open(log, "w", encoding="utf-8") as file:
        port = taken.getsockname()[1]
        server = subprocess.Popen(
            [str(word) for word in [*course.lab_command(), "--port", port]],
            cwd=tmp_path,
            env=os.environ | own,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = None
            deadline = time.monotonic() + 120
            while address is None and time.monotonic() < deadline and server.poll() is None:
                time.sleep(0.2)
                address = re.search(
                    r"(http://localhost:(\d+))(/lab/tree/\S+\.ipynb)\?token=(\w+)", log.read_text()
                )
            assert address, log.read_text()
            base, other_port, page, token = address.groups()
            assert int(other_port) != port
            assert page == "/lab/tree/notebooks/00_start_here.ipynb"
            for path, status in {
                f"/api/status?token={token}": 200,
                "/api/status": 403,
                f"{page}?token={token}": 200,
                f"/api/contents/course.py?content=0&token={token}": 200,
            }.items():
                assert status_of(f"{base}{path}", deadline) == status
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(10)


# The lists of packages


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES = [
    Requirement(line)
    for line in PROJECT["project"]["dependencies"]
    + PROJECT["project"]["optional-dependencies"]["test"]
]
PINS = [
    Requirement(line.split("#")[0])
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line.split("#")[0].strip()
]
PLATFORMS = {
    "linux": {"os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64"},
    "darwin": {"os_name": "posix", "platform_system": "Darwin", "platform_machine": "arm64"},
    "win32": {"os_name": "nt", "platform_system": "Windows", "platform_machine": "AMD64"},
}


def pin_of(name: str, environment: dict[str, str]) -> str:
    """The one version to which constraints.txt pins a package in an environment."""
    versions = [
        str(pin.specifier).removeprefix("==")
        for pin in PINS
        if canonicalize_name(pin.name) == canonicalize_name(name)
        and (pin.marker is None or pin.marker.evaluate(environment))
    ]
    assert len(versions) == 1, f"{name} has {len(versions)} pins in constraints.txt, not one"
    return versions[0]


def test_every_line_of_the_constraints_is_one_exact_version():
    for pin in PINS:
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), str(pin)
        assert not pin.extras and not pin.url, str(pin)


ENVIRONMENTS = [
    default_environment()
    | names
    | {"sys_platform": name, "python_version": version, "python_full_version": version + ".9"}
    for name, names in PLATFORMS.items()
    for version in ("3.11", "3.12", "3.13", "3.14")
]


def needed_in(environment: dict[str, str]) -> set[str]:
    """The course's dependencies and theirs in turn, as far as those installed here declare them."""
    todo, seen = list(DEPENDENCIES), set()
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        try:
            declared = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # a package of another platform
        cases = [environment | {"extra": extra} for extra in ("", *requirement.extras)]
        for needed in map(Requirement, declared):
            if needed.marker is None or any(map(needed.marker.evaluate, cases)):
                todo.append(needed)
    return {name for name, _ in seen}


@pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids="{0[sys_platform]} {0[python_version]}".format
)
def test_everything_needed_is_pinned_to_a_version_that_is_allowed(environment):
    pins = {name: pin_of(name, environment) for name in needed_in(environment)}
    for dependency in DEPENDENCIES:
        pin = pins[canonicalize_name(dependency.name)]
        assert dependency.specifier.contains(pin), f"{dependency}, but its pin is {pin}"


def test_what_is_installed_here_is_what_is_pinned():
    here = default_environment()
    for name in needed_in(here):
        installed = importlib.metadata.version(name).split("+")[0]
        assert installed == pin_of(name, here), f"{name}: run python3 course.py setup"


def test_every_dependency_says_why_it_is_there():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    for dependency in DEPENDENCIES:
        declared = re.compile(rf'\s+"{re.escape(str(dependency))}",\s+# \w')
        assert any(map(declared.match, lines)), f"{dependency} needs a comment in pyproject.toml"


def test_conda_installs_the_same_package_with_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["project"]["name"]
    [pip] = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert " ".join(pip).split() == ["--extra-index-url", CPU_INDEX, *PIP[1:]]
    conda = [part for part in environment["dependencies"] if isinstance(part, str)]
    assert [re.split("[=<>]", part)[0] for part in conda] == ["python", "pip"]
    python = conda[0].removeprefix("python=")
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.15"
    assert python in ("3.11", "3.12", "3.13", "3.14")
