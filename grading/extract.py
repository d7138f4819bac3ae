"""A submission's answers, read in a process with limits: some files exhaust their reader."""

from dataclasses import asdict

from .answers import Answer, Unreadable, answers, parse
from .graft import master
from .limited import TooMuch, limited, packed, unpacked


def extracted(content: str, notebook: str) -> dict[str, dict]:
    """The answers in a file, packed for another process: a dict for each exercise.

    If the file is no notebook, the only one is {"unreadable": {"problem": why}}.
    """
    try:
        found = answers(parse(unpacked(content)), master(notebook))
    except Unreadable as error:
        return {"unreadable": {"problem": str(error)}}
    return {name: asdict(answer) for name, answer in found.items()}


def extract(content: bytes, notebook: str) -> dict[str, Answer]:
    """The answers in a file, read in a process with limits. Raises Unreadable."""
    try:
        found = limited("extracted", packed(content), notebook)
    except TooMuch as error:
        raise Unreadable(f"is too large to be read: {error}") from None
    if "unreadable" in found:
        raise Unreadable(found["unreadable"]["problem"])
    return {name: Answer(**fields) for name, fields in found.items()}
