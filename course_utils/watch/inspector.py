"""A cache as a table: layer, length, bytes, and a stripe of what is filled."""

from dataclasses import dataclass
from html import escape

import pandas as pd

from .contents import Layer, contents

WIDTH = 32  # characters, of a stripe
LEGEND = "█ filled · ▓ filled in part · ▀ keys only · ▄ values only · ░ empty"


@dataclass(frozen=True, repr=False)
class Inspected:
    """What was found in a cache, or `message`, which says what was looked for."""

    layers: list[Layer]
    message: str = ""

    def table(self) -> pd.DataFrame:
        """One row per layer, and one for all."""
        rows = {
            f"layer {number}": {
                "length": layer.length,
                "room": layer.room,
                "bytes": layer.nbytes,
                "filled": stripe(layer),
            }
            for number, layer in enumerate(self.layers, 1)
        }
        total = {"length": "", "room": "", "filled": ""}
        rows["together"] = total | {"bytes": sum(layer.nbytes for layer in self.layers)}
        return pd.DataFrame(rows).T[["length", "room", "bytes", "filled"]]

    def __repr__(self) -> str:
        return self.message or f"{self.table().to_string()}\n{LEGEND}"

    def _repr_html_(self) -> str:
        """The same as a table, in which a screen reader hears the stripes in words."""
        if self.message:
            return f"<p>{escape(self.message)}</p>"
        html = self.table().to_html(notebook=True)
        for layer in self.layers:
            drawn = stripe(layer)
            said = f'<span role="img" aria-label="{in_words(layer)}">{drawn}</span>'
            html = html.replace(f"<td>{drawn}</td>", f"<td>{said}</td>", 1)
        return f"{html}\n<p>{LEGEND}</p>"


def inspect(cache: object) -> Inspected:
    """What a cache holds, as a table to look at: put it last in a cell.

    It is told from the tensors of the cache, right or wrong, the course's or another. If nothing
    is found that could be keys and values, the message says what was looked for.
    """
    try:
        return Inspected(contents(cache))
    except ValueError as nothing:
        return Inspected([], str(nothing))


def stripe(layer: Layer) -> str:
    """The positions of a layer, at most `WIDTH` characters; each is one position, or several."""
    keys, values = layer.filled()
    each = -(-layer.room // WIDTH) or 1
    starts = range(0, layer.room, each)
    return "".join(_sign(keys[at : at + each], values[at : at + each]) for at in starts)


def _sign(keys: list[bool], values: list[bool]) -> str:
    if not any(keys + values):
        return "░"
    if not any(values):
        return "▀"
    if not any(keys):
        return "▄"
    return "█" if all(keys + values) else "▓"


def in_words(layer: Layer) -> str:
    """Such as "23 of 1280 keys, 23 of 1280 values"."""
    keys, values = layer.filled()
    return f"{sum(keys)} of {layer.room} keys, {sum(values)} of {layer.room} values"
