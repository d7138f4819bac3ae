"""What a cache holds, as far as can be told from its tensors: layer by layer, K and V.

Shapes: B rows of the batch, H heads, S positions there is room for, d numbers per head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

PAIRS = (("keys", "values"), ("key_cache", "value_cache"), ("k", "v"), ("K", "V"))
LENGTHS = ("lengths", "length")
LOOKED_FOR = (
    "No keys and values found in this {kind}. Looked for: attributes or entries called "
    + ", ".join(f"`{keys}` and `{values}`" for keys, values in PAIRS)
    + "; a list with such an object, or a pair (k, v), for each layer; tensors of shape "
    "(batch, heads, positions, d), or (layers, batch, heads, positions, d)."
)


@dataclass(frozen=True)
class Layer:
    """One layer's keys and values, (B, H, S, d) each, or None; `length` is what the cache says."""

    keys: Tensor | None
    values: Tensor | None
    length: int

    @property
    def room(self) -> int:
        """Positions there is room for."""
        return max((t.size(-2) for t in (self.keys, self.values) if t is not None), default=0)

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.keys, self.values) if t is not None)

    def filled(self) -> tuple[list[bool], list[bool]]:
        """For each position there is room for: does it hold a key, does it hold a value?

        A position that the cache does not count holds none, whatever is in its memory, nor does
        one with nothing but zeros.
        """
        return self._filled(self.keys), self._filled(self.values)

    def _filled(self, rows: Tensor | None) -> list[bool]:
        if rows is None:
            return [False] * self.room
        full = (rows != 0).movedim(-2, 0).flatten(1).any(1).tolist()
        full += [False] * (self.room - len(full))
        return [here and place < self.length for place, here in enumerate(full)]


def contents(cache: object) -> list[Layer]:
    """The layers of a cache. Raises ValueError, which says what was looked for, if there are none.

    Understood are the course's caches, those of `transformers`, and objects like them.
    """
    layers = _layers(cache, cache)
    if not layers:
        raise ValueError(LOOKED_FOR.format(kind=type(cache).__name__))
    return layers


def _layers(part: object, cache: object) -> list[Layer]:
    """The layers found in a part of a cache, which may hold them at any depth of lists."""
    if part is None or isinstance(part, str | int | float | Tensor):
        return []
    for names in PAIRS:
        keys, values = (_get(part, name) for name in names)
        if _is_stack(keys) or _is_stack(values):
            return _stacked(keys, values, cache)
    if (pair := _pair(part)) is not None:
        return [Layer(*pair, _length(cache, 0, pair))]
    if isinstance(part, Sequence):
        pairs = [_pair(entry) for entry in part]
        if any(pairs):
            return [
                Layer(*(pair or (None, None)), _length(cache, number, pair))
                for number, pair in enumerate(pairs)
            ]
        return [layer for entry in part for layer in _layers(entry, entry)]
    inside = part.values() if isinstance(part, dict) else getattr(part, "__dict__", {}).values()
    return next((found for value in inside if (found := _layers(value, cache))), [])


def _get(part: object, name: str) -> object:
    found = part.get(name) if isinstance(part, dict) else getattr(part, name, None)
    return None if callable(found) else found


def _is_stack(value: object) -> bool:
    """Whether it is a tensor of keys or values, or one for each layer."""
    if isinstance(value, Tensor):
        return value.dim() >= 3
    return isinstance(value, Sequence) and any(map(_is_rows, value))


def _is_rows(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() in (3, 4)


def _pair(entry: object) -> tuple[Tensor, Tensor] | None:
    """The (k, v) of a layer: a pair of tensors, or an object that has both."""
    if isinstance(entry, Sequence) and len(entry) == 2 and all(map(_is_rows, entry)):
        return entry[0], entry[1]
    for names in PAIRS:
        keys, values = (_get(entry, name) for name in names)
        if _is_rows(keys) and _is_rows(values):
            return keys, values
    return None


def _stacked(keys: object, values: object, cache: object) -> list[Layer]:
    """Layers of two lists of tensors, of two tensors with the layers first, or of one layer."""
    keys, values = (_by_layer(rows) for rows in (keys, values))
    layers = []
    for number in range(max(len(keys), len(values))):
        pair = [rows[number] if number < len(rows) else None for rows in (keys, values)]
        pair = [rows if _is_rows(rows) else None for rows in pair]
        layers.append(Layer(*pair, _length(cache, number, pair)))
    return layers


def _by_layer(rows: object) -> list[object]:
    if isinstance(rows, Tensor):
        return list(rows) if rows.dim() == 5 else [rows]
    return list(rows) if isinstance(rows, Sequence) else []


def _length(cache: object, number: int, pair: Sequence[Tensor | None] | None) -> int:
    """Positions that the cache says it holds in a layer; if it says nothing, what there is."""
    for name in LENGTHS:
        said = _get(cache, name)
        if isinstance(said, Sequence) and number < len(said) and isinstance(said[number], int):
            return said[number]
        if isinstance(said, int):
            return said
    return max((rows.size(-2) for rows in pair or () if rows is not None), default=0)
