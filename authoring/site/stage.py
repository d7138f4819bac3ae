"""Which files of the course become pages, and what of them a reader does not need to see."""

import json
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CODE = ("course_utils", "grading", "benchmarks", "setup")
PLAIN = ("*.md", "*.toml", "*.yml", "*.txt", "*.cff", "LICENSE*", "course.py", "data/README.md")
OWN = {name: name for name in ("index.md", "code.md", "cheat_sheet.md")}
OWN["exercises.md"] = "notebooks/exercises/index.md"
ZIP = "kv-cache-course.zip"
DOWNLOAD = re.compile(rf"{{download}}`([^`<]+) </{re.escape(ZIP)}>`")
NOT_RUN = "Nothing has been run on this page: the figures and outputs are in the worked notebook."
LEFT_OUT = {".ipynb_checkpoints", "__pycache__", "__init__.py"}
SOLUTION_MARK = re.compile(r"^ *### (?:BEGIN|END) (?:SOLUTION|HIDDEN TESTS)\n?", re.M)


def stage(root: Path, target: Path) -> None:
    """Copy what the site is made from into `target`, each file at its own place in the course."""
    folders = [root / "notebooks", *(root / name for name in CODE)]
    found = [path for folder in folders for path in sorted(folder.rglob("*"))]
    found += [path for pattern in PLAIN for path in sorted(root.glob(pattern))]
    for path in found:
        if path.is_file() and not LEFT_OUT & set(path.parts):
            place = target / path.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    zipped = pack(root, target / ZIP)
    for name, place in OWN.items():
        text = (HERE / name).read_text(encoding="utf-8")
        text = text if zipped else DOWNLOAD.sub(r"\1", text)
        text = text.replace("](../../", "](")  # links that are right on GitHub, too
        (target / place).write_text(text, encoding="utf-8")


def pack(root: Path, file: Path) -> bool:
    """Write a zip of what is committed in `root`; return False where git has nothing to say."""
    if not (root / ".git").exists() or not shutil.which("git"):
        return False
    command = ["git", "archive", "--format=zip", f"--prefix={file.stem}/", "-o", str(file), "HEAD"]
    return subprocess.run(command, cwd=root).returncode == 0


def for_readers(text: str, links: str, suffix: str = "") -> str:
    """A notebook as JSON, without marks for graders, with alt text, and with links on top.

    `suffix` goes on with the title.
    """
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = SOLUTION_MARK.sub("", "".join(cell["source"]))
            if alts := alt_texts(cell):
                cell["metadata"]["mystnb"] = {"image": {"alt": alts[0]}}
    if links:
        title, _, rest = "".join(notebook["cells"][0]["source"]).partition("\n")
        notebook["cells"][0]["source"] = f"{title}{suffix}\n\n{links}\n{rest}"
    return json.dumps(notebook)


def alt_texts(cell: dict) -> list[str]:
    """What each figure of a code cell shows, in words."""
    metadata = [output.get("metadata", {}) for output in cell["outputs"]]
    return [m["image/png"]["alt"] for m in metadata if "alt" in m.get("image/png", {})]


def links_on_top(docname: str, zipped: bool) -> str:
    """Markdown that leads from a notebook to the files."""
    folder, _, name = docname.rpartition("/")
    download = f"{{download}}`Download the notebook <{name}.ipynb>`"
    course = f"{{download}}`Download the course </{ZIP}>`" if zipped else ""
    note = NOT_RUN if folder == "notebooks/exercises" else ""
    return "\n".join([":::{container} page-actions", download, course, ":::", "", note])
