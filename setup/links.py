"""Writes the address of a copy on GitHub: `python3 course.py links OWNER/REPO`.

README.md and INSTRUCTORS.md get it between two comments. Each notebook with a number, worked or
exercise, gets a line of links under its title, and a cell that does something only in Google Colab.
Another time, with another name, all of these are replaced, and nothing else is touched.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
NAME = r"(?:https://github\.com/)?([\w-]+)/([\w.-]+?)(?:\.git)?/?"
LINE = re.compile(r"^> Open in \[Colab\].*$", re.M)
WORDS = re.compile(r"^> Words: .*$", re.M)  # the last line of the way through the course
BLOCK = re.compile(r"(<!-- links: (\w+) -->\n).*?(<!-- end of links -->)", re.S)
CELL = "colab"  # the id of the cell for Colab, which is also in authoring/__init__.py
HIDDEN = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["remove-cell"]}
CODE = """\
# @title In Google Colab, run this cell first. Anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    import os
    import runpy
    import subprocess

    course = "/content/{repo}"
    if not os.path.exists(course):
        command = ["git", "clone", "--quiet", "--depth=1", "--branch={branch}"]
        subprocess.check_call([*command, "https://github.com/{owner}/{repo}", course])
    runpy.run_path(course + "/setup/colab.py")["start"](
        "{path}"
    )"""
BADGES = """\
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})
[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})
"""
DOORS = """\
- **Google Colab:** [start here]({colab}), or follow the link at the top of a notebook. Its first
  cell fetches the course and installs what is missing; Colab's own PyTorch stays. Save a copy of
  the notebook in Drive before you work in it: otherwise it is gone when the session ends.
- **Binder:** [the course in JupyterLab]({binder}). It needs no account, and the first start takes
  some minutes. Download what you want to keep.
- **From GitHub:** `git clone --branch {branch} https://github.com/{owner}/{repo}`. The links above
  and in the notebooks lead there. For a copy of your own, run `python3 course.py links` in it, with
  its name.
"""
CLASSROOM = """\
## In a browser

- **Google Colab:** every exercise opens from the link under its title, for example
  [01 Attention]({exercise}).
- **JupyterHub:** make the hub's image from this copy with repo2docker, with nbgitpuller added to
  `environment.yml`. {hub_text}
  It fetches the course, or later only what is new in it, and opens the folder of exercises:

  ```
  {pull}
  ```

These are the exercises of this copy, with the course's versions folded below the checks. A hand-out
has no such link.

"""
NO_HUB = "The link for students is the address of your hub, with this after it."
A_HUB = "Students follow the link below."


@dataclass(frozen=True)
class Copy:
    """A copy of the course on GitHub; `hub` is the address of a JupyterHub, or empty."""

    owner: str
    repo: str
    branch: str
    hub: str

    def colab(self, path: str) -> str:
        """Where Google Colab opens a notebook, given as a path in the course."""
        github = f"https://colab.research.google.com/github/{self.owner}/{self.repo}"
        return f"{github}/blob/{self.branch}/{path}"

    def binder(self, path: str) -> str:
        """Where Binder opens a notebook or a folder in JupyterLab."""
        copy = f"{self.owner}/{self.repo}/{quote(self.branch, safe='')}"
        return f"https://mybinder.org/v2/gh/{copy}?urlpath=lab/tree/{path}"

    def github(self, path: str) -> str:
        """Where GitHub shows a file."""
        return f"https://github.com/{self.owner}/{self.repo}/blob/{self.branch}/{path}"

    def pull(self, folder: str) -> str:
        """The link to a JupyterHub with nbgitpuller, from `/hub` on if no hub is known."""
        address = quote(f"https://github.com/{self.owner}/{self.repo}", safe="")
        place = quote(f"lab/tree/{self.repo}/{folder}", safe="")
        words = f"repo={address}&branch={quote(self.branch, safe='')}&urlpath={place}"
        return f"{self.hub}/hub/user-redirect/git-pull?{words}"


def page(text: str, copy: Copy) -> str:
    """A page of the course with all that is between its comments written anew."""
    blocks = {"badges": BADGES, "doors": DOORS, "classroom": CLASSROOM}
    words = vars(copy) | {
        "colab": copy.colab("notebooks/00_start_here.ipynb"),
        "binder": copy.binder("notebooks"),
        "exercise": copy.colab("notebooks/exercises/01_attention.ipynb"),
        "pull": copy.pull("notebooks/exercises"),
        "hub_text": A_HUB if copy.hub else NO_HUB,
    }
    return BLOCK.sub(lambda found: found[1] + blocks[found[2]].format(**words) + found[3], text)


def notebook(text: str, copy: Copy, path: str) -> str:
    """A notebook, as JSON, with its links and its cell for Colab."""
    content = json.loads(text)
    cells = content["cells"]
    title = with_links("".join(cells[0]["source"]), copy, path)
    cells[0]["source"] = title.splitlines(keepends=True)
    code = CODE.format(path=path, **vars(copy)).splitlines(keepends=True)
    made = {"cell_type": "code", "execution_count": None, "id": CELL, "metadata": HIDDEN}
    content["cells"] = [cell for cell in cells if cell.get("id") != CELL]
    content["cells"].insert(1, made | {"outputs": [], "source": code})
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def with_links(text: str, copy: Copy, path: str) -> str:
    """A notebook's first cell with the line of links: the old one's place, or under the way."""
    line = f"> Open in [Colab]({copy.colab(path)}) · [Binder]({copy.binder(path)}) · "
    line += f"[GitHub]({copy.github(path)})"
    if LINE.search(text):
        return LINE.sub(lambda _: line, text)
    if WORDS.search(text):
        return WORDS.sub(lambda words: f"{words[0]}\n>\n{line}", text)
    title, _, rest = text.partition("\n\n")
    return f"{title}\n\n{line}\n\n{rest}"


def changes(copy: Copy) -> Iterator[tuple[Path, str]]:
    """The files that have to change, with their new text."""
    notebooks = sorted(ROOT.glob("notebooks/**/[0-9][0-9]_*.ipynb"))
    for path in (ROOT / "README.md", ROOT / "INSTRUCTORS.md", *notebooks):
        if ".ipynb_checkpoints" not in path.parts:
            text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
            new = page(text, copy) if path.suffix == ".md" else notebook(text, copy, name)
            if new != text:
                yield path, new


def matching(pattern: str) -> Callable[[str], re.Match]:
    """What reads an argument of the command line, or says what it should look like."""

    def read(text: str) -> re.Match:
        if not (found := re.fullmatch(pattern, text, re.A)):
            raise argparse.ArgumentTypeError(f"{text!r} is not of this form")
        return found

    return read


def main(arguments: list[str] | None = None) -> int:
    """Write the links, say which files changed, and return the exit status."""
    parser = argparse.ArgumentParser(prog="course.py links", description=__doc__.splitlines()[0])
    copy, branch, hub = matching(NAME), matching(r"[\w./-]+"), matching(r"(https?://[^\s()]+?)/*|")
    parser.add_argument("copy", type=copy, metavar="OWNER/REPO", help="the copy on GitHub")
    parser.add_argument("--branch", type=branch, default="main", help="what is linked (main)")
    parser.add_argument("--hub", type=hub, default="", help="a JupyterHub, https://...")
    given = parser.parse_args(arguments)
    copy = Copy(*given.copy.groups(), given.branch[0], given.hub[1] or "")
    written = list(changes(copy))
    for path, text in written:
        part = path.with_name(path.name + ".part")  # so that no file is ever half written
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)
        print(path.relative_to(ROOT).as_posix())
    where = f"branch {copy.branch} of github.com/{copy.owner}/{copy.repo}"
    print(f"{len(written)} file{'s' * (len(written) != 1)} changed: all links lead to {where}.")
    if written:
        print("They work once that is committed and pushed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
