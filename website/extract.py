"""Figures and tables, taken out of the outputs of executed notebooks."""

import base64
import json
import re
from pathlib import Path


def _cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def figure(path: Path, title: str) -> tuple[bytes, str]:
    """The PNG and the alt text of the figure whose caption has `title` in its first words.

    Raises LookupError if the notebook has no such figure.
    """
    cells = _cells(path)
    for cell, after in zip(cells, cells[1:], strict=False):
        caption = "".join(after["source"])
        if re.match(rf"\*\*Figure \d+\. {re.escape(title)}\.\*\*", caption):
            for output in cell.get("outputs", []):
                if png := output.get("data", {}).get("image/png"):
                    alt = output["metadata"]["image/png"]["alt"]
                    return base64.b64decode("".join(png)), alt
    raise LookupError(f"{path.name} has no figure named {title!r}")


def table(path: Path, column: str) -> str:
    """The HTML of the table that has a column named `column`.

    Raises LookupError unless the notebook printed exactly one such table.
    """
    outputs = [o for cell in _cells(path) for o in cell.get("outputs", [])]
    tables = ["".join(o.get("data", {}).get("text/html", "")) for o in outputs]
    found = [html for html in tables if f"<th>{column}</th>" in html]
    if len(found) != 1:
        raise LookupError(f"{path.name} has {len(found)} tables with a column {column!r}")
    return found[0]


def accessible(html: str) -> str:
    """A table of pandas with scopes on its headers and no style of its own."""
    html = re.sub(r"<style.*?</style>\s*", "", html, flags=re.S)
    html = re.sub(r' (?:style|border|valign)="[^"]*"', "", html)
    html = re.sub(r"<th( \w+=\"[^\"]*\")?></th>", r"<td\1></td>", html)
    head, end, body = html.partition("</thead>")
    return (
        head.replace("<th", '<th scope="col"').replace('<th scope="col"ead', "<thead")
        + end
        + body.replace("<th>", '<th scope="row">')
    )
