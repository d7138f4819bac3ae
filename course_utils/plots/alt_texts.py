"""What the figures of the notebooks show, in words: the texts of `data/alt_texts.toml`."""

import difflib
import functools
import tomllib

from ..transformer import ROOT

FILE = ROOT / "data" / "alt_texts.toml"


def alt_text(key: str, **values: object) -> str:
    """The text with this key, with `values` in the places that have their names.

    Raises ValueError for a key that is not in the file, KeyError for a value that is missing.
    """
    texts = _texts()
    if key not in texts:
        (nearest,) = difflib.get_close_matches(key, texts, n=1, cutoff=0)
        raise ValueError(
            f"No figure in data/{FILE.name} has the key {key!r}; the nearest one is {nearest!r}. "
            "The words for a new figure go there, and its key into the call."
        )
    return texts[key].format(**values)


@functools.cache
def _texts() -> dict[str, str]:
    """All texts by their keys, each as one line."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8")).values()
    return {key: " ".join(text.split()) for table in tables for key, text in table.items()}
