"""Which errors are right: where there is no room, or where a cache says what it does not offer."""

import contextlib
import dis
from collections.abc import Callable, Iterator
from typing import Any

NO_ERROR = "no error was raised; expected one that says the sequence is too long"
SAID_SO = (NotImplementedError, ValueError, AssertionError)


class NotOffered(Exception):
    """A cache says, by NotImplementedError, that it has no such rollback, order or number of rows.

    The script ends before it.
    """


def only_if_offered(may_be_left_out: bool, call: Callable[[], Any]) -> Any:
    """What the call returns. Raises NotOffered if it may be left out and is."""
    try:
        return call()
    except NotImplementedError:
        if may_be_left_out:
            raise NotOffered from None
        raise


class Ended(Exception):
    """The script ends here, and nothing was wrong."""


class NotRefused(ValueError):
    """Tokens went in where there was no room for them; `result` is what came out."""

    def __init__(self, result: object):
        super().__init__(NO_ERROR)
        self.result = result


def refuse(call: Callable[[], object]) -> None:
    """Any error is right where there is no room; NotRefused is raised if there is none."""
    try:
        result = call()
    except Exception:
        return
    raise NotRefused(result)


@contextlib.contextmanager
def ending_the_script(may_fail: bool) -> Iterator[None]:
    """If it may fail, an error is no fault, and ends the script."""
    try:
        yield
    except NotOffered:
        raise
    except Exception as error:
        if may_fail:
            raise Ended from error
        raise


def on_purpose(error: Exception) -> bool:
    """Was it raised by a `raise` or an `assert` with words, and not by what an operation met?"""
    place = error.__traceback__
    if place is None or not isinstance(error, SAID_SO) or not str(error).strip():
        return False
    while place.tb_next is not None:
        place = place.tb_next
    if place.tb_frame.f_globals.get("__name__", "").split(".")[0] == "torch":
        return False
    return dis.opname[place.tb_frame.f_code.co_code[place.tb_lasti]] == "RAISE_VARARGS"
