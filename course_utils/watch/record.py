"""A text fed to a model call by call, with its cache and without: what was done, as a record.

Everything is measured in float64, on a copy of the model on the CPU.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..evaluation import copied, precise_copy
from ..stories import START, Tokenizer, split
from .heard import Heard, Listener
from .rows import KINDS, LEFT_OVER, Known, looks, states

TOP = 3
TOLERANCE = 1e-9  # as kv_evaluate's
CALLS = (1, 1, 2, 1, 1)


@dataclass(frozen=True)
class Call:
    """What one call of the model did; rows are counted in the order of `Record.rows`.

    `cells` holds a letter per row for each layer's K and V (`rows.states` says which); `looks` the
    attention in percent, by layer, query and row: of the tokens that went in or, if they are more
    than two, of the last. `error` is the largest difference of its logits from the uncached ones,
    `position` the first that is wrong.
    """

    start: int
    end: int
    cells: list[dict[str, str]]
    looks: list[list[list[int]]]
    top: list[tuple[str, float]]
    operations: int
    error: float = 0.0
    position: int | None = None

    @property
    def wrong(self) -> bool:
        return self.position is not None


@dataclass
class Record:
    """The calls of one model; `rows` are the words, of which `earlier` belong to an earlier text.

    `ended` says what the model raised, if it did.
    """

    name: str
    rows: list[str]
    earlier: int
    calls: list[Call] = field(default_factory=list)
    ended: str = ""

    @property
    def first_wrong(self) -> int | None:
        """The number of the first call whose logits are wrong."""
        return next((i for i, call in enumerate(self.calls) if call.wrong), None)


@dataclass
class Text:
    """What is fed: token ids (1, T), the words for them, and where each call ends."""

    ids: Tensor
    words: list[str]
    ends: list[int]
    earlier: Tensor  # (1, E)
    earlier_words: list[str]


def precise_on_cpu(model: nn.Module) -> nn.Module:
    """A copy in float64 on the CPU: Apple's GPU has no float64."""
    return precise_copy(copied(model).cpu())[0]


def encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """The ids (1, T) of a story."""
    return torch.tensor([tokenizer.encode([START, *split(text)])])


@torch.no_grad()
def continued(
    model: nn.Module, tokenizer: Tokenizer, text: str, calls: Sequence[int], earlier: str
) -> Text:
    """The text, and as many of the likeliest words after it as the calls feed, without a cache."""
    ids = encode(tokenizer, text)
    ends = [ids.size(1)]
    for tokens in calls:
        ends.append(ends[-1] + tokens)
    while ids.size(1) < ends[-1]:
        ids = torch.cat([ids, model(ids)[0][:, -1:].argmax(-1)], dim=1)
    before = encode(tokenizer, earlier) if earlier else ids[:, :0]
    words = [[tokenizer.words[i] for i in row[0]] for row in (ids, before)]
    return Text(ids, words[0], ends, before, words[1])


class Recorder:
    """Records models on one text; the first model's uncached pass is what is right.

    `logits` and `layers` are what it returned and did, call by call.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        text: str,
        calls: Sequence[int] = CALLS,
        earlier: str = "",
    ):
        model = precise_on_cpu(model)
        listener, start = Listener(model), 0
        self.words = tokenizer.words
        self.text = continued(model, tokenizer, text, calls, earlier)
        self.uncached = Record("without a cache", self.text.words, 0)
        self.logits: list[Tensor] = []
        self.layers: list[list[Heard]] = []
        for end in self.text.ends:
            logits, _, layers, operations = listener.call(self.text.ids[:, :end])
            self.logits.append(logits)
            self.layers.append(layers)
            known = _nothing_known(layers)
            self._note(self.uncached, known, layers, logits[start:], operations, (start, end))
            start = end

    def record(self, name: str, model: nn.Module) -> Record:
        """Feed the text to the model through its cache, after the earlier text, if there is one.

        Raises NotImplementedError if the model does; any other error ends the record and is noted.
        """
        listener = Listener(precise_on_cpu(model))
        text = self.text
        earlier = text.earlier.size(1)
        record = Record(name, text.earlier_words + text.words, earlier)
        known: list[dict[str, Known]] = []
        cache, start = None, 0
        try:
            if earlier:
                _, _, layers, _ = listener.call(text.earlier, use_cache=True)
                known = _nothing_known(layers)
                _add(known, layers, earlier)
            for end in text.ends:
                ids = text.ids[:, start:end]
                logits, cache, layers, operations = listener.call(
                    ids, past_kv=cache, use_cache=True
                )
                known = known or _nothing_known(layers)
                self._note(record, known, layers, logits, operations, (start, end))
                start = end
        except NotImplementedError:
            raise
        except Exception as error:
            record.ended = f"{type(error).__name__}: {error}"
        return _without_unused(record)

    def _note(
        self,
        record: Record,
        known: list[dict[str, Known]],
        layers: list[Heard],
        logits: Tensor,
        operations: int,
        span: tuple[int, int],
    ) -> None:
        """Add a call to the record: `logits` (Q, V) are those of the positions in `span`."""
        (start, end), number, earlier = span, len(record.calls), record.earlier
        _add(known, layers, earlier + end)
        cells, seen = [], []
        shown = end - start if end - start <= 2 else 1
        for heard, rows, right in zip(layers, known, self.layers[number], strict=True):
            places = {kind: rows[kind].find(heard.given[kind], earlier) for kind in KINDS}
            where = (earlier, earlier + end, len(record.rows))
            cells.append(
                {
                    kind: states(heard, kind, places[kind], right.made[kind], *where)
                    for kind in KINDS
                }
            )
            seen.append(looks(heard.weights[-shown:], places["K"], len(record.rows)))
        errors = (logits - self.logits[number][start:]).abs().nan_to_num(math.inf).amax(-1)
        wrong = (errors > TOLERANCE).nonzero().flatten().tolist()
        likely = torch.softmax(logits[-1], dim=-1).topk(TOP)
        top = [
            (self.words[i], value)
            for value, i in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
        ]
        first = start + wrong[0] if wrong else None
        error = errors.max().item()
        record.calls.append(Call(start, end, cells, seen, top, operations, error, first))


def _nothing_known(layers: list[Heard]) -> list[dict[str, Known]]:
    return [{kind: Known() for kind in KINDS} for _ in layers]


def _add(known: list[dict[str, Known]], layers: list[Heard], end: int) -> None:
    for rows, heard in zip(known, layers, strict=True):
        for kind in KINDS:
            rows[kind].add(heard.made[kind], end)


def _without_unused(record: Record) -> Record:
    """The record without the earlier text's rows, if no call ever got one of them."""
    cells = [c for call in record.calls for layer in call.cells for c in layer.values()]
    if any(LEFT_OVER in rows for rows in cells):
        return record
    cut = record.earlier
    calls = [
        replace(
            call,
            cells=[{kind: rows[cut:] for kind, rows in layer.items()} for layer in call.cells],
            looks=[[query[cut:] for query in layer] for layer in call.looks],
        )
        for call in record.calls
    ]
    return Record(record.name, record.rows[cut:], 0, calls, record.ended)
