"""Run the worked notebooks again, each from the top in a fresh kernel, and keep what changed.

    python -m authoring.refresh              all of them, one after the other
    python -m authoring.refresh 02 07        only these
    python -m authoring.refresh --timings    new times too, with the pictures drawn from them

The first notebook that fails, warns, or prints a path of this machine ends it and stays as it was.
At the end the student edition is made anew. 05's last figure is the README's picture, too.
"""

import argparse
import base64
import copy
import io
import json
import os
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
from matplotlib.image import imread
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from authoring.site.extract import figure

from . import COLAB
from .exercises import NOTEBOOKS, write_all

CELL_SECONDS = 600
MACHINE = re.compile(r"/(home|Users|root|tmp|work)/|[A-Z]:\\\\")
NOT_COMPARED = "nbval-ignore-output"
PICTURE = "image/png"


class Refused(Exception):
    """A notebook that must not be committed as it ran: the message says where and why."""


def refresh(path: Path, timings: bool = False) -> str:
    """Run a notebook in its folder, rewrite its file if need be, and say what became of it.

    A run in which nothing but times changed is dropped: what cells tagged `nbval-ignore-output`
    print and, in a notebook with such cells, the pictures. Raises Refused.
    """
    read = path.read_text(encoding="utf-8")
    before, after = (nbformat.reads(read, as_version=4) for _ in range(2))
    execute(after, path.parent)
    timed = any(NOT_COMPARED in cell.metadata.get("tags", []) for cell in after.cells)
    changed = timings
    for old, new in zip(before.cells, after.cells, strict=True):
        tidy(old)
        tidy(new)
        keep_equal_pictures(old, new)
        but_for_times = timed and not timings
        changed = changed or seen(old, but_for_times) != seen(new, but_for_times)
    text = nbformat.writes(after if changed else before) + "\n"
    if path.read_text(encoding="utf-8") != read:
        raise Refused("somebody edited it while it ran")
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    os.replace(unfinished, path)
    if text == read:
        return "as it was" + (", but for times: --timings takes them over" if timed else "")
    return "rewritten" if changed else "tidied"


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells but Colab's in a fresh kernel in `folder`. Raises Refused, with the number."""
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    cells = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.get("id") != COLAB]
    code = [(index, cell) for index, cell in cells if cell.cell_type == "code"]
    for _, cell in code:
        cell.outputs, cell.execution_count = [], None
    with client.setup_kernel():
        for number, (index, cell) in enumerate(code, 1):
            try:
                client.execute_cell(cell, index)
                fault = fault_of(cell)
            except CellExecutionError as error:
                fault = f"{error.ename}: {error.evalue}"
            except (CellTimeoutError, DeadKernelError) as error:
                fault = str(error).splitlines()[0]
            if fault:
                raise Refused(f"cell [{number}] ({cell.id}): {fault}")


def fault_of(cell: NotebookNode) -> str:
    """What in a cell's outputs must not be committed, or nothing."""
    for output in cell.outputs:
        if output.output_type == "error" or output.get("name") == "stderr":
            return "an error or a warning: " + output.get("text", output.get("ename"))
        if found := MACHINE.search(json.dumps(without_picture(output))):
            return f"a path of this machine, with {found[0]} in it"
    return ""


def tidy(cell: NotebookNode) -> None:
    """Drop when a cell ran, and join what it printed in one go but came in pieces."""
    cell.metadata.pop("execution", None)
    joined = []
    for output in cell.get("outputs", []):
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            joined.append(output)
    if cell.cell_type == "code":
        cell.outputs = joined


def without_picture(output: NotebookNode) -> NotebookNode:
    """A copy of an output without its picture; the alt text stays."""
    output = copy.deepcopy(output)
    output.get("data", {}).pop(PICTURE, None)
    return output


def keep_equal_pictures(old: NotebookNode, new: NotebookNode) -> None:
    """Where a picture shows the same as before, to the pixel, it stays the same to the byte."""
    for pair in zip(old.get("outputs", []), new.get("outputs", []), strict=False):
        if all(PICTURE in output.get("data", {}) for output in pair):
            files = (io.BytesIO(base64.b64decode(output.data[PICTURE])) for output in pair)
            if np.array_equal(*map(imread, files)):
                pair[1].data[PICTURE] = pair[0].data[PICTURE]


def seen(cell: NotebookNode, but_for_times: bool) -> tuple:
    """What of a cell's run counts as a change: its number, what it printed, its pictures."""
    outputs = cell.get("outputs", [])
    if but_for_times and NOT_COMPARED in cell.metadata.get("tags", []):
        outputs = [len(outputs)]
    elif but_for_times:
        outputs = [without_picture(output) for output in outputs]
    return cell.get("execution_count"), outputs


def main(arguments: list[str] | None = None) -> int:
    """Refresh the notebooks with these numbers, or all; returns the exit status, 0 if all ran."""
    paths = [*NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"), *NOTEBOOKS.glob("*/[0-9][0-9]_*.ipynb")]
    paths = {path.name[:2]: path for path in paths if path.parent.name != "exercises"}
    parser = argparse.ArgumentParser(prog="python -m authoring.refresh")
    parser.add_argument("numbers", nargs="*", metavar="NN", help="only these notebooks")
    parser.add_argument("--timings", action="store_true", help="new times too, and their pictures")
    given = parser.parse_args(arguments)
    if unknown := set(given.numbers) - set(paths):
        parser.error(f"there is no notebook {' '.join(sorted(unknown))}")
    for number in sorted(given.numbers or paths):
        print(f"{paths[number].stem}: ", end="", flush=True)
        try:
            print(refresh(paths[number], given.timings))
        except Refused as reason:
            print(f"not rewritten. {reason}")
            return 1
        if paths[number].stem == "06_latency_sweep":
            picture, _ = figure(paths[number], "The latency sweep")
            (NOTEBOOKS / "latency_sweep.png").write_bytes(picture)
    write_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
