"""Which row of K or V is which: what attention gets, told apart by its numbers.

A row is named by its place in a list of words: first those of an earlier text, then those of the
text that is watched. `E` is the number of the earlier ones.
"""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .heard import Heard

KINDS = ("K", "V")
SAME = 1e-9  # of what is compared in float64
NOTHING, WRITTEN, READ, MISSING, LEFT_OVER = ".", "w", "r", "-", "x"


@dataclass
class Known:
    """All rows of one layer, K or V, that were made so far, and the place of each."""

    rows: list[Tensor] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def add(self, made: Tensor, end: int) -> None:
        """Take in rows (Q, D) that belong to the last Q places before `end`."""
        self.rows += made.unbind()
        self.places += range(end - len(made), end)

    def find(self, given: Tensor, otherwise: int) -> list[int]:
        """The place of each row (K, D): that of the row made with the same numbers.

        Of several made alike it is the last. A row that was never made takes the place that follows
        from its number, from `otherwise` on.
        """
        made = torch.stack(self.rows)
        equal = torch.stack([(made - row).abs().amax(-1) <= SAME for row in given])
        found: list[int] = []
        for number, same in enumerate(equal):
            places = [self.places[i] for i in same.nonzero().flatten().tolist()]
            unused = [place for place in places if place not in found]
            found.append((unused or places or [otherwise + number])[-1])
        return found


def states(
    heard: Heard, kind: str, places: list[int], right: Tensor, earlier: int, end: int, room: int
) -> str:
    """What became of each of `room` rows of one layer in one call: a letter per row.

    `places` are those of the rows that attention got, `right` (T, D) the rows of the uncached pass;
    the text ends at place `end`. "w" was written in this call, "r" is read from the cache, "-" is
    missing, "x" is left over from the earlier text, "." is nothing. A capital letter: its numbers
    are not those of the uncached pass, or it is there twice.
    """
    new = range(end - len(heard.made[kind]), end)
    times = Counter(places)
    letters = [NOTHING] * room
    letters[earlier:end] = MISSING * (end - earlier)
    for row, place in zip(heard.given[kind], places, strict=True):
        if place >= end:
            continue
        if place < earlier:
            letters[place] = LEFT_OVER
            continue
        letter = WRITTEN if place in new else READ
        equal = (row - right[place - earlier]).abs().max() <= SAME and times[place] == 1
        letters[place] = letter if equal else letter.upper()
    return "".join(letters)


def looks(weights: Tensor, places: list[int], room: int) -> list[list[int]]:
    """Attention weights (Q, K) in percent, per query and place: (Q, room)."""
    at = torch.zeros(len(weights), room + 1, dtype=torch.float64)
    columns = torch.tensor([min(place, room) for place in places])
    at.index_add_(1, columns, weights.nan_to_num(0).cpu().double())
    return (100 * at[:, :room]).round().int().tolist()
