"""What all checks share: a verdict, and sentences for errors, shapes and weights."""

import functools
import inspect
import linecache
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType

import torch
from torch import Tensor, nn

from ..transformer import DecoderOnlyTransformer


def verdict(check: Callable[..., str]) -> Callable[..., str]:
    """A check whose own AssertionError, or a stub's, ends in one line, without those of its file.

    An error that an answer raises itself keeps its traceback, unless a sentence was made of it.
    IPython leaves out a function that has a variable `__tracebackhide__`. PyTorch's random numbers
    go on where they were before the check.
    """

    @functools.wraps(check)
    def judge(*answers: object) -> str:
        __tracebackhide__ = True
        try:
            with torch.random.fork_rng(devices=[]):
                return textwrap.fill(check(*answers), WIDTH)
        except NotImplementedError as error:
            if not is_stub(error):
                raise
            code = _raised_in(error)
            if not (files := set(map(file_of, answers)) - {None}) or code.co_filename in files:
                raise NotImplementedError(*error.args) from None
            name = code.co_qualname.rpartition("<locals>.")[2]
            first = f"`{name}` is still to be written: its exercise comes first."
            raise AssertionError(first) from None
        except AssertionError as error:
            *_, (raised_in, _) = traceback.walk_tb(error.__traceback__)
            if "checks" not in raised_in.f_globals.get("__name__", "").split("."):
                raise
            raise AssertionError(*error.args) from None

    return judge


WIDTH = 95  # characters of a line of a verdict, so that none is broken within a word
STUB = "Your turn: "  # how the error of an exercise that is not begun starts
LIBRARY = str(Path(linecache.__file__).parent)
NOT_THEIRS = {"course_utils", "torch", "numpy", "transformers"}  # lines of no student
ADVICE = {
    "unary ~: 'NoneType'": "mask may be None: nothing is hidden then",
    "Boolean value of": "a tensor of several numbers is neither true nor false; to ask whether "
    "there is a tensor at all, write `is not None`",
    "index k out of range": "along a row (dim=-1) there are logits.size(-1) numbers, and k may be "
    "larger: take min(k, logits.size(-1))",
    "tuple indices": "what was called returns several things: unpack them first, as in "
    "`logits, _ = model(ids)`",
    "Expected reduction dim": "there may be nothing to reduce over: ask for the size first",
    "leaf Variable that requires grad": "a tensor that came in is changed; work on a new one",
    "view size is not compatible": "`view` needs numbers that lie next to each other; where "
    "they do not, as after a transpose, `reshape` copies them first",
}


def is_stub(error: Exception) -> bool:
    """Whether it is the error of an exercise that is not begun."""
    said = str(error)
    return isinstance(error, NotImplementedError) and (not said or said.startswith(STUB))


def _raised_in(error: Exception) -> CodeType:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code


def file_of(answer: object) -> str | None:
    """The file, or the notebook's cell, in which a function or a class's methods are written."""
    parts = [answer, *getattr(answer, "__dict__", {}).values()]
    codes = (getattr(inspect.unwrap(part), "__code__", None) for part in parts if callable(part))
    return next((code.co_filename for code in codes if code is not None), None)


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
                f"The parameters are not the expected ones: {name} of your class has shape "
                f"{tuple(has[name].shape)}, expected {tuple(parameter.shape)}. (nn.Linear(a, b), "
                "from a numbers to b, keeps its weight as (b, a).)"
            )
    module.load_state_dict(wanted)


def _only(these: dict[str, Tensor], those: dict[str, Tensor]) -> str:
    """The modules, or else the parameters, that only `these` have: "fc1, fc2"."""
    modules = {name.rpartition(".")[0] for name in those}
    names = [name for name in these if name not in those]
    owners = (name if (m := name.rpartition(".")[0]) in modules else m or name for name in names)
    return ", ".join(list(dict.fromkeys(owners))[:6]) or "nothing there"


def has_shape(found: object, shape: tuple[int, ...]) -> bool:
    """Whether it is a tensor of that shape."""
    return isinstance(found, Tensor) and found.shape == shape


def shape_or_type(found: object) -> str:
    """What came instead of a tensor of the right shape: "(2, 3)", "list" or "nothing"."""
    if found is None:
        return "nothing (is there a `return`?)"
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
