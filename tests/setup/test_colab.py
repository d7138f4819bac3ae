"""A notebook in Google Colab: its first cell fetches the course and installs what is missing.

Colab is imitated: another Python, without .venv and without the course, that has all packages of
this one but two; a package `google.colab`, imported before the notebook; git, which answers for
GitHub from a folder; and a stand-in for pip.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import matplotlib
import pytest

pytestmark = pytest.mark.authors

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("course.py", "pyproject.toml", "constraints.txt", "model_state_dict.pt", "README.md")
FOLDERS = ("setup", "course_utils", "data", "notebooks")
MISSING = ("hypothesis", "sortedcontainers")  # Colab has neither
IN_COLAB = pytest.mark.skipif(
    not shutil.which("git") or os.name == "nt", reason="needs git, and links between folders"
)

PIP = """
import json, os, sys
from pathlib import Path

arguments = sys.argv[1:]
limits = Path(arguments[arguments.index("-c") + 1]).read_text()
Path("PIP").write_text(json.dumps([arguments, limits.splitlines()]))
if "PIP_FAILS" in os.environ:
    print("no network", file=sys.stderr)
    sys.exit(1)
for path in Path("STORE").iterdir():
    (Path("PACKAGES") / path.name).symlink_to(path.resolve())
"""
NOTEBOOK = """
import google.colab, json, os, sys
cells = json.load(open(sys.argv[1], encoding="utf-8"))["cells"]
code = [cell for cell in cells if cell["cell_type"] == "code"]
for cell in code[: int(sys.argv[2])]:
    exec("".join(cell["source"]).replace("/content", os.environ["CONTENT"]), globals())
import course_utils, hypothesis
print(json.dumps([course_utils.__file__, os.getcwd(), hypothesis.__file__]))
"""


def git(*arguments: str, folder: Path) -> None:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, timeout=60)


class Colab:
    """A machine like Colab's, in a folder."""

    def __init__(self, path: Path):
        self.path, self.content = path, path / "content"
        self.packages, self.store, self.github = (path / n for n in ("packages", "store", "github"))
        for folder in (self.content, self.packages, self.store, self.github):
            folder.mkdir()
        self._other_python()
        self._copy_on_github()

    def _other_python(self) -> None:
        """A Python with links to this one's packages, and those that are missing put by for pip.

        Nothing is written where a link leads: no bytecode, and `google` is a folder of its own.
        """
        venv.create(self.path / "python", symlinks=True)
        for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
            own = entry.name.startswith(("__", "kv_cache_course", "pip", "google"))
            if not own and entry.suffix != ".pth":
                missing = entry.name.startswith(MISSING)
                ((self.store if missing else self.packages) / entry.name).symlink_to(entry)
        (self.packages / "google" / "colab").mkdir(parents=True)
        (self.packages / "google" / "colab" / "__init__.py").touch()
        pip = PIP.replace("STORE", str(self.store)).replace("PACKAGES", str(self.packages))
        (self.packages / "pip.py").write_text(pip.replace("PIP", str(self.path / "pip.json"), 1))

    def _copy_on_github(self) -> None:
        """The course, linked and committed on a branch."""
        here = self.github
        for name in FOLDERS:
            shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in (*NEEDED, "INSTRUCTORS.md"):
            shutil.copyfile(ROOT / name, here / name)
        links = [sys.executable, "course.py", "links", "ada/kv-course", "--branch", "autumn"]
        subprocess.run(links, cwd=here, check=True, capture_output=True, timeout=60)
        git("init", "-q", "-b", "autumn", folder=here)
        git("add", ".", folder=here)
        git("commit", "-qm", "the course", folder=here)

    def run(self, notebook: str, cells: int, **variables: str) -> subprocess.CompletedProcess:
        """Run the first code cells of a notebook that was opened from GitHub."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.packages),
            "CONTENT": str(self.content),
            "HOME": str(self.path),
            "MPLCONFIGDIR": matplotlib.get_configdir(),  # where it keeps its list of fonts
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{self.github.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": "https://github.com/ada/kv-course",
            "GIT_ALLOW_PROTOCOL": "file",  # nothing else is asked
        }
        program = [self.path / "python" / "bin" / "python", "-c", NOTEBOOK]
        return subprocess.run(
            [*program, str(self.github / notebook), str(cells)],
            cwd=self.content,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def colab(tmp_path):
    return Colab(tmp_path)


@IN_COLAB
def test_the_first_cell_makes_an_exercise_run_and_leaves_pytorch_alone(colab):
    before = {path.name for path in colab.packages.iterdir()}
    done = colab.run("notebooks/exercises/02_transformer_block.ipynb", 2)
    assert done.returncode == 0, done.stderr
    package, folder, hypothesis = json.loads(done.stdout.splitlines()[-1])
    course = colab.content / "kv-course"
    assert package == str(course / "course_utils" / "__init__.py")
    assert folder == str(course / "notebooks" / "exercises")
    assert hypothesis == str(colab.packages / "hypothesis" / "__init__.py")
    assert f"The course is in {course}." in done.stdout
    arguments, limits = json.loads((colab.path / "pip.json").read_text())
    assert arguments[:2] == ["install", "--quiet"] and arguments[4:] == ["hypothesis"]
    assert {line.split("==")[0] for line in limits} >= {"torch", *MISSING}
    assert len([line for line in limits if line.startswith("torch==")]) == 1
    assert not [line for line in limits if line.startswith(("numpy", "pandas", "transformers"))]
    added = {path.name for path in colab.packages.iterdir()} - before
    assert added == {path.name for path in colab.store.iterdir()}
    assert not (course / ".venv").exists()


@IN_COLAB
def test_it_can_run_again_in_another_notebook_and_installs_nothing_twice(colab):
    assert colab.run("notebooks/going_further/11_many_processes.ipynb", 1).returncode == 0
    (colab.path / "pip.json").unlink()
    kept = colab.content / "kv-course" / "mine.txt"
    kept.touch()
    done = colab.run("notebooks/00_start_here.ipynb", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])[1] == str(kept.parent / "notebooks")
    assert kept.exists() and not (colab.path / "pip.json").exists()


@IN_COLAB
def test_what_fails_is_said(colab):
    notebook = "notebooks/exercises/01_attention.ipynb"
    done = colab.run(notebook, 1, PIP_FAILS="1")
    assert done.returncode != 0 and "pip could not install hypothesis" in done.stderr
    shutil.rmtree(colab.content / "kv-course")
    done = colab.run(notebook, 1, GIT_CONFIG_COUNT="0")
    assert done.returncode != 0 and "fatal:" in done.stderr and "git" in done.stderr
    assert not (colab.content / "kv-course").exists()
