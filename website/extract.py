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
    """The rows with these names, in this order, of a table of pandas; names may break at "_".

    Raises LookupError if it lacks one of them.
    """
    head, start, rest = html.partition("<tbody>")
    body, end, tail = rest.partition("</tbody>")
    rows = {match[1]: match[0] for match in ROW.finditer(body)}
    if missing := [name for name in names if name not in rows]:
        raise LookupError(f"the table has no rows {missing}")
    kept = "".join(rows[name].replace(name, name.replace("_", "_<wbr>")) for name in names)
    return head + start + kept + "\n" + end + tail


def captioned(html: str, caption: str) -> str:
    """The table with a caption."""
    return re.sub(r"(<table[^>]*>)", rf"\1\n<caption>{escape(caption)}</caption>", html)


def scrolling(html: str, name: str) -> str:
    """The table in a frame of its own, which scrolls where the table is too wide."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">{html}</div>'
    )


def accessible(html: str) -> str:
    """The table with scopes on its headers, and without a style of its own."""
    html = re.sub(r"<style.*?</style>\s*", "", html, flags=re.S)
    html = re.sub(r' (?:style|border|valign|halign)="[^"]*"', "", html)
    html = re.sub(r"<th( colspan=\"\d+\")?></th>", r"<td\1></td>", html)
    head, end, body = html.partition("</thead>")
    head = re.sub(r"<th(?=[ >])", '<th scope="col"', head)
    return head + end + re.sub(r"<th(?=[ >])", '<th scope="row"', body)


def course_map(readme: str) -> str:
    """The table of the notebooks, as Markdown; raises LookupError if there is none."""
    found = re.search(r"^\| notebook \|.*?(?=\n\n)", readme, re.S | re.M)
    if not found:
        raise LookupError("the README has no table of notebooks")
    return found[0]
