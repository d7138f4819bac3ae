"""Whether a module is right when it is used again: other numbers, other sizes, a long input."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from .inputs import Call, shown
from .judged import calling, difference
from .modules import Use, made

LONG = 1100  # more positions than a table of the usual sizes has room for


def right_again(
    module_class: type[nn.Module],
    reference_class: type[nn.Module],
    use: Use,
    inputs: Sequence[Tensor],
    result: Callable[[object], object] = lambda found: found,
) -> None:
    """Raise AssertionError unless one module is right on all the inputs, one after the other.

    A new module is asked too, so that the message tells whether what came before has to do with it.
    """
    module, right = (made(c, reference_class, use) for c in (module_class, reference_class))
    for before, x in zip([inputs[0], *inputs], inputs, strict=False):
        expected = result(right(x))
        if not (how := _how(module, x, expected, result)):
            continue
        if anew := _how(made(module_class, reference_class, use), x, expected, result):
            raise AssertionError(f"{replace(use, args=(x,))} {anew}.")
        raise AssertionError(
            f"A {use.name} that was used on {shown(before)} gets {shown(x)} the next time, and "
            f"{how}. Keep nothing, such as positions or a mask, from one call to the next."
        )


def _how(module: nn.Module, x: Tensor, expected: object, result: Callable[[object], object]) -> str:
    try:
        found = result(calling(module)(Call("", (x,))))
    except AssertionError as error:
        return str(error).rstrip(".")
    return difference(found, expected, expected)
