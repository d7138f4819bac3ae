"""What all checks share: a verdict, what compares answers, and what names a known mistake.

A mistake is a pair: the wrong answer that it gives, and advice for who gave it.
"""

import functools
import linecache
import math
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..transformer import DecoderOnlyTransformer

Mistakes = Iterable[tuple[object, str]]


def verdict(check: Callable[..., str]) -> Callable[..., str]:
    """A check whose own AssertionError ends in one line, without the lines of its file.

    An error that an answer raises itself keeps its traceback, unless `ask` made a sentence of it.
    IPython leaves out a function that has a variable `__tracebackhide__`. PyTorch's random numbers
    go on where they were before the check.
    """

    @functools.wraps(check)
    def judge(*answers: object) -> str:
        __tracebackhide__ = True
        try:
            with torch.random.fork_rng(devices=[]):
                return check(*answers)
        except AssertionError as error:
            *_, (raised_in, _) = traceback.walk_tb(error.__traceback__)
            if "checks" not in raised_in.f_globals.get("__name__", "").split("."):
                raise
            raise AssertionError(*error.args) from None

    return judge


LIBRARY = str(Path(linecache.__file__).parent)
NOT_THEIRS = {"course_utils", "torch", "numpy"}  # packages whose lines are not a student's
ADVICE = {
    "unary ~: 'NoneType'": "mask may be None: nothing is hidden then",
    "Boolean value of": "a tensor is neither true nor false: ask whether it `is not None`",
    "index k out of range": "k may exceed the number of words: take min(k, logits.size(-1))",
    "tuple indices": "the model returns two things: `logits, _ = model(ids)`",
    "Expected reduction dim": "there may be none to reduce over: ask for their number first",
    "leaf Variable that requires grad": "a tensor that came in is changed; work on a new one",
    "view size is not compatible": "`view` needs numbers that lie next to each other; where "
    "they do not, as after a transpose, `reshape` copies them first",
}


def raised(error: Exception) -> str:
    """What an answer raised, and at which of its lines, as the end of a sentence."""
    line = own_line(error)
    at = f" at `{line}`" if line else ""
    advice = next((f" ({advice})" for words, advice in ADVICE.items() if words in str(error)), "")
    message = str(error).strip().split("\n")[0].rstrip(".")
    said = f": {message}" if message else ""
    return f"raised {type(error).__name__}{at}{said}{advice}"


def own_line(error: Exception) -> str:
    """The last line on the way to an error that is the student's own, if it can be told."""
    lines = [
        linecache.getline(frame.f_code.co_filename, number).strip()
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").split(".")[0] not in NOT_THEIRS
        and not frame.f_code.co_filename.startswith(LIBRARY)
    ]
    return next((line for line in reversed(lines) if line), "")


def ask(answer: Callable, *given: object) -> object:
    """What the answer returns; an error in it becomes a sentence with its line and the shapes."""
    try:
        return answer(*given)
    except NotImplementedError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError, AttributeError) as error:
        parts = [x for part in given for x in (part if isinstance(part, tuple) else (part,))]
        shapes = ", ".join(str(tuple(x.shape)) for x in parts if isinstance(x, Tensor))
        raise AssertionError(f"Your function {raised(error)}. Shapes given: {shapes}.") from error


def tiny_model(vocab_size: int = 20, max_seq_len: int = 16) -> DecoderOnlyTransformer:
    """A random model of two layers and three heads; its logits are far enough apart to sample."""
    torch.manual_seed(0)
    shape = (vocab_size, 12, 24, 2, max_seq_len)
    model = DecoderOnlyTransformer(*shape, num_heads=3, dropout=0.0).eval()
    with torch.no_grad():
        model.output_projection.weight.mul_(4)
    return model


def load_weights(module: nn.Module, reference: nn.Module) -> None:
    """Copy the weights, or raise AssertionError if names or shapes of parameters differ."""
    has, wanted = module.state_dict(), reference.state_dict()
    if has.keys() != wanted.keys():
        raise AssertionError(
            f"The parameters are not the expected ones: your class has {_only(has, wanted)}; "
            f"expected {_only(wanted, has)}."
        )
    for name, parameter in wanted.items():
        if has[name].shape != parameter.shape:
            raise AssertionError(
                f"The parameters are not the expected ones: {name} has shape "
                f"{tuple(has[name].shape)}, expected {tuple(parameter.shape)}."
            )
    module.load_state_dict(wanted)


def _only(these: dict[str, Tensor], those: dict[str, Tensor]) -> str:
    """The modules, or else the parameters, that only `these` have: "fc1, fc2"."""
    modules = {name.rpartition(".")[0] for name in those}
    names = [name for name in these if name not in those]
    owners = (name if (m := name.rpartition(".")[0]) in modules else m or name for name in names)
    return ", ".join(list(dict.fromkeys(owners))[:6]) or "nothing there"


def unchanged(
    before: Iterable[Tensor],
    after: Iterable[Tensor],
    otherwise: str = "A tensor that came in was changed. Work on a new one.",
) -> None:
    """Raise AssertionError(otherwise) unless the tensors are what they were."""
    if not all(map(torch.equal, before, after)):
        raise AssertionError(otherwise)


def pair(found: object, otherwise: str) -> tuple:
    """`found`, or AssertionError(otherwise) unless it is a tuple of two."""
    if not isinstance(found, tuple) or len(found) != 2:
        raise AssertionError(otherwise)
    return found


def has_shape(found: object, shape: tuple[int, ...]) -> bool:
    """Whether it is a tensor of that shape."""
    return isinstance(found, Tensor) and found.shape == shape


def shape_or_type(found: object) -> str:
    """What came instead of a tensor of the right shape: "(2, 3)" or "list"."""
    return str(tuple(found.shape)) if isinstance(found, Tensor) else type(found).__name__


def tensor(found: object, what: str, shape: tuple[int, ...]) -> Tensor:
    """`found`, or AssertionError unless it is a tensor of that shape."""
    if found is None:
        raise AssertionError(f"{what} is None. Does the function return its result?")
    if not isinstance(found, Tensor):
        raise AssertionError(f"{what} is a {type(found).__name__}, expected a torch.Tensor.")
    if found.shape != shape:
        raise AssertionError(f"{what} has shape {tuple(found.shape)}, expected {tuple(shape)}.")
    return found


def difference(found: Tensor, expected: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> str:
    """How a tensor of the right shape differs, "is 1 at [0], expected 2"; nothing if it does not.

    Of two tensors with different dtypes, only that is said.
    """
    if found.dtype != expected.dtype:
        return f"has dtype {found.dtype}, expected {expected.dtype}"
    wrong = ~torch.isclose(found, expected, rtol=rtol, atol=atol)
    if not wrong.any():
        return ""
    at = tuple(wrong.nonzero()[0].tolist())
    return f"is {found[at].item():.5g} at {list(at)}, expected {expected[at].item():.5g}"


def close(found: object, expected: Tensor, what: str) -> None:
    """Raise AssertionError, saying how `found` differs, unless it is the tensor `expected`."""
    found = tensor(found, what, expected.shape)
    how = difference(found, expected)
    if found.dtype == expected.dtype and found.isnan().any() and not expected.isnan().any():
        how = "holds NaN (not a number), expected finite numbers"
    if how:
        raise AssertionError(f"{what} {how}.")


def same(found: object, wrong: object, atol: float = 1e-5, rtol: float = 1e-5) -> bool:
    """Whether an answer is the one that a usual mistake gives.

    A tensor, of any dtype, and a float may differ by a rounding; all else has to be equal.
    """
    if isinstance(wrong, float):
        return math.isclose(found, wrong, rel_tol=rtol, abs_tol=atol)
    if not isinstance(wrong, Tensor):
        return found == wrong
    if not has_shape(found, wrong.shape):
        return False
    return torch.allclose(found.to(wrong.dtype), wrong, rtol=rtol, atol=atol)


def known(found: object, mistakes: Mistakes, atol: float = 1e-5, rtol: float = 1e-5) -> str:
    """The advice for the first mistake that gives just this answer, or nothing."""
    return next((advice for wrong, advice in mistakes if same(found, wrong, atol, rtol)), "")


def refuse_known(found: object, mistakes: Mistakes, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    """Raise AssertionError, with its advice, for the first mistake that gives just this answer."""
    if advice := known(found, mistakes, atol, rtol):
        raise AssertionError(advice)
