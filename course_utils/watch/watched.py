"""A cache that one can watch: the record of a run as what a notebook shows."""

import base64
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from torch import nn

from ..plots.look import WIDTH
from ..plots.picture import png
from ..stories import Tokenizer
from .heard import CannotWatch
from .page import as_text, page
from .record import CALLS, Record, Recorder
from .stills import in_words, stills


class Watched:
    """Records of caches on one text, beside the uncached pass; put it last in a cell.

    It shows itself as HTML with buttons, as a picture where there is no HTML, else as text.
    """

    def __init__(self, uncached: Record, records: Sequence[Record]):
        self.uncached, self.records = uncached, records

    def __repr__(self) -> str:
        return as_text(self.uncached, self.records)

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, dict]]:
        figure = stills(self.records)
        data = {
            "text/html": page(self.uncached, self.records),
            "image/png": base64.b64encode(png(figure)).decode(),
            "text/plain": repr(self),
        }
        plt.close(figure)
        size = {"width": int(100 * WIDTH)}
        return data, {"image/png": {"alt": in_words(self.records)} | size}


class Unseen:
    """What is shown instead of a model that cannot be watched: why. It has no records."""

    def __init__(self, reason: str):
        self.reason = reason
        self.records: list[Record] = []

    def __repr__(self) -> str:
        return self.reason


def watch(
    models: nn.Module | Mapping[str, nn.Module],
    tokenizer: Tokenizer,
    text: str,
    calls: Sequence[int] = CALLS,
    earlier: str = "",
) -> Watched | Unseen:
    """Feed a text to a model through its cache, and show call by call what happens.

    The whole text goes in first, then `calls` says how many tokens at a time: the likeliest words
    of the first model's uncached pass, whatever the cache answers. All is run in float64, on
    copies on the CPU. `models` may hold several by name, to choose from: the same weights with
    other caches. `earlier` is a text that each model runs through a cache before, as another user
    would.

    A model that cannot be watched is answered by a message. Raises NotImplementedError if one of
    them does.
    """
    models = models if isinstance(models, Mapping) else {"the cache": models}
    try:
        recorder = Recorder(next(iter(models.values())), tokenizer, text, calls, earlier)
        records = [recorder.record(name, model) for name, model in models.items()]
    except CannotWatch as reason:
        return Unseen(str(reason))
    return Watched(recorder.uncached, records)
