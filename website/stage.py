"""Which files of the course become pages, and what of them a reader does not need to see."""

import json
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
CODE = ("course_utils", "grading", "benchmarks")
PLAIN = ("*.md", "*.toml", "*.yml", "*.txt", "*.cff", "LICENSE*", "course*.py", "data/README.md")
LATER = ("CONTRIBUTING", "CHANGELOG")  # pages that a copy of the course may lack
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
    lines = (HERE / "index.md").read_text(encoding="utf-8").splitlines(keepends=True)
    missing = {name + "\n" for name in LATER if not (target / f"{name}.md").exists()}
    kept = "".join(line for line in lines if line not in missing)
    (target / "index.md").write_text(kept, encoding="utf-8")
    shutil.copyfile(HERE / "exercises.md", target / "notebooks" / "exercises" / "index.md")
    shutil.copyfile(HERE / "code.md", target / "code.md")


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


def links_on_top(docname: str, docnames: set[str]) -> str:
    """Markdown that leads from a notebook to its exercise, or back, and to the file itself."""
    folder, _, name = docname.rpartition("/")
    download = f"{{download}}`Download the notebook <{name}.ipynb>`"
    if folder == "notebooks/exercises":
        homes = ("notebooks", "notebooks/going_further")
        home = next(home for home in homes if f"{home}/{name}" in docnames)
        way = "../" + home.removeprefix("notebooks").removeprefix("/")
        first = f"[Read the worked notebook]({way.rstrip('/')}/{name}.ipynb)"
    elif f"notebooks/exercises/{name}" in docnames:
        way = "../exercises" if folder.endswith("going_further") else "exercises"
        first = f"[Open the exercise]({way}/{name}.ipynb)"
    else:
        first = ""
    return "\n".join([":::{container} page-actions", first, download, ":::"])
