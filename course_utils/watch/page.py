"""A record as one piece of HTML that needs nothing else: text that a script makes a picture of."""

import json
from collections.abc import Sequence
from html import escape

from .record import Call, Record
from .rows import KINDS
from .script import SCRIPT
from .style import STYLE
from .words import fed, likely, operations, problems, sentence, strip, summary

LEGEND = (
    ('<i class="w"></i>', "written in this call"),
    ('<i class="r"></i>', "read from the cache"),
    ('<i class="bad">r</i>', "other numbers than without a cache"),
    ('<i class="gone">?</i>', "missing"),
    ('<i class="x"></i>', "left over from another text"),
)


def page(uncached: Record, records: Sequence[Record]) -> str:
    """The records, beside the uncached one; the first is the one that is shown at first."""
    data = {"records": [_as_data(record) for record in (uncached, *records)]}
    script = SCRIPT.replace("CONTROLS", _in_a_script(controls(uncached, records)))
    script = script.replace("DATA", _in_a_script(data))
    return f"""<div class="kv-watch">
<style>{STYLE}</style>
<details open><summary>All calls as text</summary>
<pre>{escape(as_text(uncached, records))}</pre></details>
<script>{script}</script>
</div>"""


def controls(uncached: Record, records: Sequence[Record]) -> str:
    """What the script puts before the text: buttons, slider, choices, and room for the picture."""
    layers = len(uncached.calls[0].cells)
    names = enumerate([record.name for record in records], 1)
    caches = "".join(f'<option value="{number}">{escape(name)}</option>' for number, name in names)
    last = " selected"
    which = "".join(
        f'<option value="{number}"{last * (number == layers - 1)}>layer {number + 1}</option>'
        for number in range(layers)
    )
    key = "".join(f"<span>{sign}{meaning}</span>" for sign, meaning in LEGEND)
    return f"""<div class="kv-live" role="group" aria-label="A cache, call by call">
<div class="kv-bar"><button type="button">Back</button><button type="button">Step</button>
<button type="button">Play</button>
<label>Cache <select>{caches}</select></label><label>Looks in <select>{which}</select></label></div>
<div class="kv-line"><input type="range" min="0" value="0" step="1" aria-label="call">
<div class="kv-marks" aria-hidden="true"></div></div>
<p class="kv-says" aria-live="polite"></p>
<div class="kv-panel"></div>
<div class="kv-key" aria-hidden="true">{key}</div>
</div>
<div class="kv-stills"></div>"""


def as_text(uncached: Record, records: Sequence[Record]) -> str:
    """The calls of the first record, and of each other one where it is wrong."""
    first, *others = records
    return "\n".join([f"{first.name}:", strip(first, uncached), *map(_found, others)])


def _found(record: Record) -> str:
    number = record.first_wrong
    return summary(record) + ("" if number is None else f". {problems(record, number)}")


def _as_data(record: Record) -> dict[str, object]:
    total = 0
    calls = []
    for number, call in enumerate(record.calls):
        total += call.operations
        calls.append(_call_as_data(record, number, call) | {"total": operations(total)})
    return {
        "rows": record.rows,
        "earlier": record.earlier,
        "calls": calls,
        "first": record.first_wrong,
        "ended": record.ended,
    }


def _call_as_data(record: Record, number: int, call: Call) -> dict[str, object]:
    wrong = problems(record, number)
    return {
        "start": call.start,
        "end": call.end,
        "words": record.rows[record.earlier :][call.start : call.end],
        "fed": fed(record, call),
        "says": [part for part in (sentence(record, number).removesuffix(wrong), wrong) if part],
        "cells": [[layer[kind].rstrip(".") for kind in KINDS] for layer in call.cells],
        "looks": call.looks,
        "out": likely(call),
        "operations": operations(call.operations),
        "wrong": call.wrong,
    }


def _in_a_script(data: object) -> str:
    """JSON that may be put between <script> tags."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
