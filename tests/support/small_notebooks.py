"""Notebooks of a few cells, for tests of what runs notebooks."""

import json
from pathlib import Path


def write_notebook(path: Path, *cells: tuple) -> None:
    """Write a notebook of cells: type, source, tags, text that the cell printed."""
    path.parent.mkdir(exist_ok=True)
    written = []
    for number, (kind, source, tags, printed) in enumerate(cells, 1):
        cell = {"id": f"cell{number}", "cell_type": kind, "source": source}
        cell["metadata"] = {"tags": tags} if tags else {}
        if kind == "code":
            stream = {"output_type": "stream", "name": "stdout", "text": printed}
            cell |= {"execution_count": number, "outputs": [stream] if printed else []}
        written.append(cell)
    notebook = {"cells": written, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")
