"""Make the site: `python -m authoring.site` writes it to `_site`, and any warning is an error."""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .paper import SHEET, add_pdf
from .stage import ROOT, stage

SITE = ROOT / "_site"
NEEDS = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")
NO_PDF = "The cheat sheet is there as a page only: a PDF of it needs Chromium or Chrome."
INSTALL = "python3 course.py site adds what is missing."


def build(root: Path = ROOT, site: Path = SITE) -> int:
    """Make the site of the course in `root`; return 0 if there was no warning.

    The pages go to `site`, and what else Sphinx writes into temporary folders.
    """
    with tempfile.TemporaryDirectory() as folder:
        sources, state, pages = (Path(folder, name) for name in ("sources", "state", "pages"))
        stage(root, sources)
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-E"]
        command += ["-c", str(Path(__file__).parent), "-d", str(state), str(sources), str(pages)]
        status = subprocess.run(command, cwd=ROOT).returncode
        if (pages / SHEET).exists() and not add_pdf(pages):
            print(NO_PDF, file=sys.stderr)
        if pages.exists():
            shutil.copytree(pages, site, dirs_exist_ok=True)
        return status


def main(arguments: list[str] | None = None) -> int:
    """Make the site, say where it is, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m authoring.site", description=__doc__)
    parser.add_argument("--out", type=Path, default=SITE, help="the folder to write (_site)")
    site = parser.parse_args(arguments).out.resolve()
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        print(f"The site needs {', '.join(missing)}: {INSTALL}", file=sys.stderr)
        return 1
    status = build(site=site)
    if status == 0:
        print(f"Open {site / 'index.html'} in a browser. It needs no server and no network.")
    return status


if __name__ == "__main__":
    sys.exit(main())
