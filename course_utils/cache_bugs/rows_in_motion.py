"""Wrong caches: rows that move, and do not take everything with them (notebook 05)."""

from ..kv_cache import GrowingCache, PreallocatedCache
from ..left_padding import LeftPaddedCache, LeftPaddedTransformer
from .entry import CacheBug, bug
from .models import WithCache

BUGS: list[CacheBug] = []


class NeverReordered(GrowingCache):
    def reorder(self, rows):
        if self.batch_size != len(rows):
            super().reorder(rows)


@bug(
    BUGS,
    "never_reordered",
    "rows are copied only if their number changes",
    "right until beams change places; then a text reads another text's past",
    "reorder must follow the rows it is given, also if there are as many as before",
    "huggingface/transformers#46612",
)
class NeverReorderedModel(WithCache):
    cache_class = NeverReordered


class KeysReordered(GrowingCache):
    def reorder(self, rows):
        values = self.values
        super().reorder(rows)
        if len(rows) == values[0].size(0):
            self.values = values


@bug(
    BUGS,
    "values_not_reordered",
    "the keys move with their rows, the values stay",
    "right until beams change places; then tokens look at the right place and find another text's",
    "reorder moves two tensors in each layer",
    "huggingface/transformers#34232",
)
class KeysReorderedModel(WithCache):
    cache_class = KeysReordered


class PaddingNotReordered(LeftPaddedCache):
    def reorder(self, rows):
        padding = self.padding
        super().reorder(rows)
        if len(rows) == len(padding):
            self.padding = padding


@bug(
    BUGS,
    "padding_not_reordered",
    "rows change places, but their amounts of padding do not",
    "right for prompts of equal length; else a row counts another row's padding",
    "what belongs to a row and is not a key or a value: padding, lengths, positions",
    "Blaizzy/mlx-vlm#1889",
)
class PaddingNotReorderedModel(LeftPaddedTransformer):
    def padded_cache(self, padding):
        return PaddingNotReordered(self, padding)


class FourRows(PreallocatedCache):
    """Buffers for four rows; a fifth is the first again."""

    def append(self, layer, k, v):
        keys, values = super().append(layer, k, v)
        rows = [row % 4 for row in range(len(keys))]
        return keys[rows], values[rows]


@bug(
    BUGS,
    "fifth_row_is_the_first",
    "there are buffers for four rows, and row 5 reads those of row 1",
    "right for up to four sequences, wrong for the fifth",
    "a number of rows that is written into the code, or taken from the first batch",
    "Dao-AILab/flash-attention#772",
)
class FourRowsModel(WithCache):
    cache_class = FourRows
