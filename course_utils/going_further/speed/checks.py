"""What the check cells of "How fast can it go?" call (chapter 07)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ... import checks
from ...checks.common import has_shape, pair, refuse_known, shape_or_type, verdict
from ...transformer import DecoderOnlyTransformer
from .roofline import Calls, cache_bytes, weight_bytes


@verdict
def check_bytes_per_token(bytes_per_token: Callable[[nn.Module, int], int]) -> str:
    """Chapter 07, exercise 1. Returns a verdict; raises AssertionError on a wrong count."""
    for shape, dtype in (
        ((20, 12, 24, 2, 16, 3), torch.float32),
        ((50, 16, 64, 3, 32, 2), torch.float16),
    ):
        model = DecoderOnlyTransformer(*shape, dropout=0.0).to(dtype)
        everything = sum(p.nbytes for p in model.parameters())
        for tokens in (7, 1):
            stored = cache_bytes(model, tokens)
            expected, found = weight_bytes(model) + stored, bytes_per_token(model, tokens)
            mistakes = [
                (everything + stored, "Of an embedding only one row is looked up for a token."),
                (weight_bytes(model), "The keys and values of all positions are read too."),
                (expected - stored // 2, "Each position keeps a key and a value, in every layer."),
                (expected // model.dtype.itemsize, "Those are numbers. In bytes, please."),
            ]
            refuse_known(found, mistakes)
            if found != expected:
                raise AssertionError(
                    f"A model of {everything:,} bytes in {dtype}, at {tokens} positions: expected "
                    f"{expected:,}, of which {stored:,} are keys and values; found {found!r}."
                )
    return "bytes_per_token is right, for two shapes and two sizes of number."


@verdict
def check_in_parts(in_parts: Callable[[Tensor, Tensor, int], Tensor]) -> str:
    """Chapter 07, exercise 2. Returns a verdict; raises AssertionError on a wrong product."""
    torch.manual_seed(0)
    for d_out, d_in, parts in ((6, 4, 2), (6, 5, 3), (12, 7, 1)):
        weight, x = torch.randn(d_out, d_in).double(), torch.randn(1, d_in).double()
        with Calls() as calls:
            found = in_parts(weight, x, parts)
        if not has_shape(found, (1, d_out)):
            raise AssertionError(f"Expected shape (1, {d_out}), found {shape_or_type(found)}.")
        if not torch.allclose(found, x @ weight.T, rtol=0, atol=1e-12):
            raise AssertionError(
                f"For a weight ({d_out}, {d_in}) and {parts} parts the numbers are not those of "
                "x @ weight.T. Each part holds rows of the weight that follow one another."
            )
        if calls.count["bmm"] != 1:
            raise AssertionError(
                f"torch.bmm was called {calls.count['bmm']} times. One call for all parts: only "
                "within a call does PyTorch give them to its threads."
            )
        moved = {name for name in ("clone", "copy_", "cat", "stack", "repeat") if calls.count[name]}
        if moved:
            raise AssertionError(
                f"Something is copied ({', '.join(sorted(moved))}). `view` and `expand` give the "
                "weight and x their new shapes where they lie."
            )
    return "in_parts is right: the same product, in one call, and nothing is copied."


class NaNAsInt8(TorchDispatchMode):
    """What NaN becomes as int8 depends on the processor: while active it is -128, never 0."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.int8:
            for x in (x for x in args if isinstance(x, Tensor) and x.is_floating_point()):
                result.masked_fill_(x.isnan(), -128)
        return result


@verdict
def check_quantize(quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> str:
    """Chapter 07, exercise 3. Returns a verdict; raises AssertionError on wrong numbers."""
    torch.manual_seed(0)
    weight = torch.randn(5, 8) * torch.tensor([[1.0], [100.0], [1e-3], [1.0], [1.0]])
    weight[3] = 0
    with NaNAsInt8():
        found = quantize(weight.clone())
    values, scale = pair(found, "quantize returns two tensors: the values, and the scale.")
    if values.dtype != torch.int8 or values.shape != weight.shape:
        raise AssertionError(
            f"The values are {values.dtype} {tuple(values.shape)}, expected torch.int8 "
            f"{tuple(weight.shape)}."
        )
    if scale.shape != (5, 1):
        raise AssertionError(f"The scale has shape {tuple(scale.shape)}, expected (5, 1).")
    if not scale.isfinite().all() or (values[3] != 0).any():
        raise AssertionError(
            "A row of zeros must come back as zeros: mind the division by 0, which gives NaN. What "
            "NaN becomes as int8 depends on the processor."
        )
    error = (values * scale - weight).abs() / scale.where(scale > 0, 1)
    if error.max() > 0.5001:
        raise AssertionError(
            f"A number comes back wrong by {error.max():.2f} steps of its row's scale; rounding to "
            "the nearest is never wrong by more than half a step."
        )
    largest = values.abs().amax(dim=1)
    if (largest[[0, 1, 2, 4]] != 127).any():
        raise AssertionError(
            f"The largest values of the rows are {largest.tolist()}: each row that is not zero "
            "should use the whole range, up to 127 or -127."
        )
    return "quantize is right: every number comes back to within half a step."


EXERCISES = {
    "07": {
        "1: count the bytes": (check_bytes_per_token, ("bytes_per_token",)),
        "2: a product in parts": (check_in_parts, ("in_parts",)),
        "3: eight bits": (check_quantize, ("quantize",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
