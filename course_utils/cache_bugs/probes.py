"""Twelve short uses of a cache that tell wrong ones apart (notebook 05)."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ..evaluation import (
    Feed,
    Lane,
    New,
    Outcome,
    RollBack,
    Script,
    Uncached,
    feeds,
    follows_its_device,
    lane_in,
    max_seq_len,
    offers,
)

LEAST_ROOM = 12
EXTRAS = ("after a rollback", "prompts of different length", "on another device")
DECODED = (6, 1, 1, 1, 1, 1, 1)


@dataclass(frozen=True)
class Probe:
    """A script whose answers count from step `judged_from` on, and what it needs.

    A model that does not offer what is needed plays `instead`.
    """

    script: Script
    judged_from: int = 0
    needs: str = ""
    instead: Script = ()


def probes(room: int) -> dict[str, Probe]:
    """The twelve uses by name, with texts of 12 tokens, but where the end of the room is tried."""
    if room < LEAST_ROOM:
        raise ValueError(f"max_seq_len={room} is too short to tell bugs apart: needs {LEAST_ROOM}.")
    text = feeds(*DECODED)
    again = [New(), *(Feed(tokens, 2) for tokens in DECODED)]
    turns = [Feed(1, text, cache) for _ in range(12) for text, cache in ((0, "A"), (2, "B"))]
    singles = [Feed(1)] * 6
    prompts = [New(3, (0, 3, 5)), Feed(8)]
    return {
        "at once": Probe(feeds(12)),
        "one by one": Probe(text),
        "one by one from the start": Probe(feeds(*(1,) * 12)),
        "in chunks": Probe(feeds(6, 2, 4)),
        "in a batch": Probe(feeds(*DECODED, rows=3)),
        "a second time": Probe([*text, *again], len(text)),
        "two at the same time": Probe([New(), New(cache="B"), *turns]),
        "without a cache, afterwards": Probe([*text, Uncached(12)], len(text)),
        "past the end": Probe(feeds(room - 2, 1, 1, 1)),
        "after a rollback": Probe(
            [New(), *singles, Feed(6, 2), RollBack(6), *singles], 0, "truncate", feeds(*(1,) * 12)
        ),
        "prompts of different length": Probe(
            [*prompts, *[Feed(1)] * 4], 0, "padded_cache", feeds(8, 1, 1, 1, 1)
        ),
        "on another device": Probe((), 0, "another device"),
    }


def outcomes(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, Outcome]:
    """What comes of the probes, each on a copy of the model as it came."""
    lane = lane_in(model)
    runs = probes(max_seq_len(model))
    return {name: outcome(lane, runs[name]) for name in names or runs}


def outcome(lane: Lane, probe: Probe) -> Outcome:
    if not probe.script:
        return _elsewhere(lane)
    offered = not probe.needs or getattr(offers(lane.fresh()), probe.needs)
    return lane.play(probe.script if offered else probe.instead, None, probe.judged_from)


def _elsewhere(lane: Lane) -> Outcome:
    """Only two devices in one operation are wrong; a model that cannot be tried there is not."""
    try:
        follows_its_device(lane.fresh())
    except RuntimeError as error:
        return Outcome(str(error), error=error)
    except Exception:
        return Outcome()
    return Outcome()
