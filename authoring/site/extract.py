"""Figures and tables, taken out of executed notebooks and the README."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

ROW = re.compile(r"\s*<tr>\s*<th[^>]*>([^<]*)</th>.*?</tr>", re.S)


def _cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def figure(path: Path, name: str) -> tuple[bytes, str]:
    """The PNG and the alt text of the figure whose caption begins "Figure N. `name`."

    Raises LookupError if the notebook has no such figure.
    """
    cells = _cells(path)
    for cell, after in zip(cells, cells[1:], strict=False):
        caption = "".join(after["source"])
        if re.match(rf"\*\*Figure \d+\. {re.escape(name)}\.\*\*", caption):
            for output in cell.get("outputs", []):
                if png := output.get("data", {}).get("image/png"):
                    alt = output["metadata"]["image/png"]["alt"]
                    return base64.b64decode("".join(png)), alt
    raise LookupError(f"{path.name} has no figure named {name!r}")


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


def only(html: str, names: Sequence[str]) -> str:
    """The rows with these names, in this order, of a table of pandas.

    Raises LookupError if it lacks one of them.
    """
    head, start, rest = html.partition("<tbody>")
    body, end, tail = rest.partition("</tbody>")
    rows = {match[1]: match[0] for match in ROW.finditer(body)}
    if missing := [name for name in names if name not in rows]:
        raise LookupError(f"the table has no rows {missing}")
    return head + start + "".join(rows[name] for name in names) + "\n" + end + tail


def captioned(html: str, caption: str) -> str:
    """The table with a caption."""
    return re.sub(r"(<table[^>]*>)", rf"\1\n<caption>{escape(caption)}</caption>", html)


def scrolling(html: str, name: str) -> str:
    """The table in a frame of its own, which scrolls where the table is too wide."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">{html}</div>'
    )


def accessible(html: str) -> str:
    """The table with scopes on its headers, which may break at "_", and without its own style."""
    html = re.sub(r"<style.*?</style>\s*", "", html, flags=re.S)
    html = re.sub(r' (?:style|border|valign|halign)="[^"]*"', "", html)
    html = re.sub(r"<thead>.*?</thead>", _with_names_of_the_index, html, flags=re.S)
    html = re.sub(r"<th( colspan=\"\d+\")?></th>", r"<td\1></td>", html)
    head, end, body = html.partition("</thead>")
    head = re.sub(r"<th(?=[ >])", '<th scope="col"', head)
    body = re.sub(r"(?<=<th>)[^<]*", lambda name: name[0].replace("_", "_<wbr>"), body)
    return head + end + re.sub(r"<th(?=[ >])", '<th scope="row"', body)


def _with_names_of_the_index(head: re.Match) -> str:
    """A table's head whose last row, the names of its index, is joined with the row above it."""
    rows = re.findall(r"<tr>.*?</tr>", head[0], re.S)[-2:]
    above, names = (re.findall(r"<th>(.*?)</th>", row) for row in ["", *rows][-2:])
    if len(above) != len(names) or any(map(all, zip(above, names, strict=True))):
        return head[0]
    cells = "".join(f"<th>{one or other}</th>" for one, other in zip(above, names, strict=True))
    return head[0].replace(rows[1], "").replace(rows[0], f"<tr>{cells}</tr>")


def course_map(readme: str) -> str:
    """The table of the notebooks, as Markdown; raises LookupError if there is none."""
    found = re.search(r"^\| notebook \|.*?(?=\n\n)", readme, re.S | re.M)
    if not found:
        raise LookupError("the README has no table of notebooks")
    return found[0]
