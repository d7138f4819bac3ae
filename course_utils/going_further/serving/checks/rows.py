"""What the check cell of the schedule calls: who stays and who joins (chapter 10)."""

from ....checks.common import pair, verdict
from ..scheduling import Request, Schedule


def _names(requests: object, known: list[Request]) -> str:
    """Requests as letters: `known` are A, B, ..."""
    if not isinstance(requests, list):
        return f"a {type(requests).__name__}"
    letters = {id(request): chr(ord("A") + i) for i, request in enumerate(known)}
    return "[" + ", ".join(letters.get(id(request), "?") for request in requests) + "]"


@verdict
def check_continuous(continuous: Schedule) -> str:
    """Chapter 10, exercise 1. Returns a verdict; raises AssertionError on a wrong schedule."""
    for done, num_waiting, max_rows in (
        ("yny", 3, 3),
        ("nnn", 2, 3),
        ("", 4, 2),
        ("nyn", 1, 4),
        ("yy", 0, 2),
        ("ny", 5, 4),
    ):
        known = [Request([1], 2, tokens=[0] * (2 if d == "y" else 1)) for d in done]
        known += [Request([1], 2) for _ in range(num_waiting)]
        running, waiting = known[: len(done)], known[len(done) :]
        expected = [r for r in running if not r.done], []
        expected = expected[0], waiting[: max_rows - len(expected[0])]
        given_waiting, given_running = list(waiting), list(running)
        found = continuous(given_waiting, given_running, max_rows)
        case = (
            f"Running {_names(running, known)}, of which "
            f"{_names([r for r in running if r.done], known)} are done; waiting "
            f"{_names(waiting, known)}; {max_rows} rows. "
        )
        found = pair(found, "Return two lists: who stays, and who joins.")
        if given_waiting != waiting or given_running != running:
            raise AssertionError(case + "The lists that came in were changed: return new ones.")
        for what, mine, right in zip(("stays", "joins"), found, expected, strict=True):
            if not isinstance(mine, list) or [*map(id, mine)] != [*map(id, right)]:
                raise AssertionError(
                    f"{case}Who {what}: expected {_names(right, known)}, found "
                    f"{_names(mine, known)}. {_why_not(what, mine, running, waiting)}"
                )
    return "continuous is right: who is done leaves at once, and who came first joins first."


def _why_not(what: str, found: object, running: list[Request], waiting: list[Request]) -> str:
    if what == "stays":
        return "Who is done leaves, and who is not stays, in the same order."
    if isinstance(found, list) and not found and waiting:
        return "There is a free row, and nobody has to wait for the others to be done."
    return "As many as there are rows that nobody who stays takes, from the head of the queue."
