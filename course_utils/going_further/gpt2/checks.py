"""What the check cells of "Real weights" call (chapter 12)."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import checks
from ...checks.common import close, refuse_known, same, unchanged, verdict
from . import bpe, checkpoint, model


@verdict
def check_merge_pair(merge_pair: Callable[[Sequence[str], bpe.Pair], list[str]]) -> str:
    """Chapter 12, exercise 1. Returns a verdict; raises AssertionError on a wrong merge."""
    for text, pair, mind in (
        ("t h e", ("t", "h"), "The two pieces become one, the others stay."),
        ("a b c a b", ("a", "b"), "Every occurrence is merged, also at the very end."),
        ("b a b a", ("a", "b"), "The order counts: (a, b) is not (b, a)."),
        ("Ġ th e n", ("th", "e"), "Pieces may be longer than one character."),
        ("th e n", ("h", "e"), "Two pieces must match, each as a whole; not their letters."),
        ("t he n", ("t", "h"), "Two pieces must match, each as a whole; not their letters."),
        ("a bc ab c", ("ab", "c"), "Two pieces must match, each as a whole; not their letters."),
        ("a a a", ("a", "a"), "From left to right, and no piece is used twice."),
        ("a a a a a", ("a", "a"), "From left to right, and no piece is used twice."),
        ("x y", ("y", "x"), "Where the pair does not occur, nothing changes."),
        ("x", ("x", "x"), "A word of one piece has no pairs."),
        ("", ("x", "x"), "No pieces, no pairs."),
    ):
        pieces = text.split()
        before, expected = pieces.copy(), bpe.merge_pair(pieces, pair)
        found = merge_pair(pieces, pair)
        if pieces != before:
            raise AssertionError(
                f"The list that came in was changed, from {before} to {pieces}. Make a new one: "
                "the old pieces may still be needed."
            )
        if isinstance(found, str) or not isinstance(found, Sequence):
            raise AssertionError(f"Expected a list of pieces, found {found!r}.")
        if list(found) != expected:
            raise AssertionError(
                f"merge_pair({before}, {pair}) is {list(found)}, expected {expected}. {mind}"
            )
    return "merge_pair is right: every occurrence, from left to right, and the order counts."


@verdict
def check_split_c_attn(split_c_attn: Callable[[Tensor, Tensor], Sequence]) -> str:
    """Chapter 12, exercise 2. Returns a verdict; raises AssertionError on a wrong split."""
    generator = torch.Generator().manual_seed(0)
    for d_model in (4, 6):
        weight = torch.randn(d_model, 3 * d_model, generator=generator)
        bias = torch.randn(3 * d_model, generator=generator)
        before = weight.clone(), bias.clone()
        found = split_c_attn(weight, bias)
        unchanged(before, (weight, bias))
        _three_pairs(found)
        expected = dict(zip("qkv", model.split_c_attn(weight, bias), strict=True))
        as_stored = weight.split(d_model, dim=1)
        mixed = *weight.view(d_model, d_model, 3).unbind(2), *weight.view(3, d_model, d_model)
        for name, (w, b), stored in zip("qkv", found, as_stored, strict=True):
            what = f"For d_model={d_model}, the weight of W_{name}"
            what_b = f"For d_model={d_model}, the bias of W_{name}"
            not_transposed = (
                f"{what} is stored as (in, out), as in GPT-2. nn.Linear wants (out, in): "
                "transpose it. It has the right shape either way, which is the trap."
            )
            refuse_known(w, [(stored, not_transposed)])
            for other in "qkv".replace(name, ""):
                other_w, other_b = expected[other]
                refuse_known(w, [(other_w, f"{what} is that of W_{other}. The order is q, k, v.")])
                refuse_known(b, [(other_b, f"{what_b} is that of W_{other}.")])
            mixes = (
                f"{what} mixes columns of all three. In each row of c_attn all of q comes "
                "first, then all of k, then all of v: cut along dim=1."
            )
            refuse_known(w, [(wrong, mixes) for part in mixed for wrong in (part, part.T)])
            right_w, right_b = expected[name]
            close(w, right_w, what)
            close(b, right_b, what_b)
    return "split_c_attn is right: q, k, v in this order, transposed, each with its bias."


def _three_pairs(found: object) -> None:
    """Raise AssertionError unless it is three pairs of tensors."""
    if not isinstance(found, Sequence) or len(found) != 3:
        count = f"{len(found)} of them" if isinstance(found, Sequence) else type(found).__name__
        raise AssertionError(f"Expected a list of three pairs, of W_q, W_k, W_v; found {count}.")
    for pair in found:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise AssertionError("Each of the three must be a pair (weight, bias).")


@verdict
def check_gelu_new(gelu_new: Callable[[Tensor], Tensor]) -> str:
    """Chapter 12, exercise 3. Returns a verdict; raises AssertionError on another function."""
    x = torch.linspace(-8, 8, 401, dtype=torch.float64).view(-1, 1)
    before, expected = x.clone(), model.gelu_new(x)
    found = gelu_new(x)
    unchanged([before], [x])
    inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
    mistakes = [
        (F.gelu(x), "This is the exact GELU, with erf: off by less than 0.0005, and not GPT-2's."),
        (torch.relu(x), "This is ReLU."),
        (F.silu(x), "This is SiLU, x * sigmoid(x)."),
        (x * torch.sigmoid(1.702 * x), "This is the approximation with a sigmoid, not with tanh."),
        (2 * expected, "Everything is twice too large: the formula begins with 0.5."),
        (0.5 * x * torch.tanh(inner), "1 is added to the tanh before it is multiplied."),
        (0.5 * (1 + torch.tanh(inner)), "The formula is multiplied by x."),
    ]
    refuse_known(found, mistakes, atol=1e-9)
    close(found, expected, "gelu_new of numbers from -8 to 8")
    error = (found - expected).abs().max().item()
    if error > 1e-12:
        raise AssertionError(
            f"In float64 it is off by up to {error:.1e}. Check each constant: sqrt(2 / pi), "
            "0.044715, and the third power."
        )
    single = gelu_new(x.float())
    close(single, model.gelu_new(x.float()), "gelu_new in float32")
    return "gelu_new is right: the formula with tanh, in float32 and float64."


@verdict
def check_translate(translate: Callable[[dict[str, Tensor], int], dict[str, Tensor]]) -> str:
    """Chapter 12, exercise 4. Returns a verdict; raises AssertionError on a wrong state dict."""
    generator = torch.Generator().manual_seed(0)
    for num_layers, tied in ((2, True), (11, False)):
        shapes = checkpoint.expected_shapes(9, 4, 10, num_layers, 5)
        if not tied:
            shapes["lm_head.weight"] = (9, 4)
        tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        expected = model.translate(tensors, num_layers)
        found = translate(dict(tensors), num_layers)
        if not isinstance(found, dict):
            raise AssertionError(
                f"Expected a dict from the course's names to tensors, found {type(found).__name__}."
            )
        missing, extra = sorted(expected.keys() - found), sorted(found.keys() - expected)
        if missing or extra:
            raise AssertionError(
                f"With {num_layers} layers, missing: {checkpoint.few(missing)}; not names of the "
                f"course's model: {checkpoint.few(extra)}."
            )
        for name, tensor in expected.items():
            _right_tensor(name, found[name], tensor, expected, tied)
    return "translate is right: every tensor under its name, every matrix as nn.Linear keeps it."


def _right_tensor(
    name: str, found: object, expected: Tensor, all_expected: dict[str, Tensor], tied: bool
) -> None:
    """Raise AssertionError, with the likeliest reason, unless `found` is `expected`."""
    if expected.dim() == 2 and "layers." in name and same(found, expected.T):
        once = ""
        if name.endswith(("W_q.weight", "W_k.weight", "W_v.weight")):
            once = " (once: `split_c_attn` has done so)"
        raise AssertionError(
            f"{name} is (in, out), as in GPT-2. nn.Linear wants (out, in): transpose it{once}. "
            "A square matrix loads either way, without an error."
        )
    if name == "output_projection.weight" and not tied:
        close(found, expected, f"{name} of a checkpoint that has an lm_head.weight (use it)")
    if same(found, expected):
        return
    others = (
        (tensor, f"{name} holds what belongs to {other}.")
        for other, tensor in all_expected.items()
        if other != name
    )
    refuse_known(found, others)
    close(found, expected, name)


@verdict
def check_fold_head(fold_head: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> str:
    """Chapter 12, exercise 5. Returns a verdict; raises AssertionError if the logits differ."""
    generator = torch.Generator().manual_seed(0)
    for vocab_size, d_model in ((7, 5), (4, 16)):
        weight, bias, gain, shift = (
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for shape in ((vocab_size, d_model), (vocab_size,), (d_model,), (d_model,))
        )
        before = [tensor.clone() for tensor in (weight, bias, gain, shift)]
        found = fold_head(weight, bias, gain, shift)
        unchanged(before, (weight, bias, gain, shift))
        expected = model.fold_head(weight, bias, gain, shift)
        ones, scaled = torch.ones(d_model).double(), weight * gain
        centred = scaled - scaled.mean(dim=1, keepdim=True)
        constant = (weight @ shift + bias)[:, None]
        mistakes = [
            (scaled, "The bias is not in it, nor is the shift."),
            (centred, "The rows are centred; the constant, weight @ shift + bias, is missing."),
            (scaled + constant / d_model, "Centre the rows first: 1 finds their means too."),
            (centred + constant, "n + 1 sums to D, so each constant arrives D times too large."),
            (centred + bias[:, None] / d_model, "The shift is lost: weight @ shift belongs to it."),
            (centred + (constant - bias[:, None]) / d_model, "The bias is lost."),
            (
                centred + (scaled @ shift + bias)[:, None] / d_model,
                "The shift meets the weight as it was, not the scaled one: weight @ shift.",
            ),
            (
                scaled - scaled.mean(0) + constant / d_model,
                "The mean that is subtracted is that of a row: dim=1.",
            ),
            (
                weight - weight.mean(1, keepdim=True) + constant / d_model,
                "The gain is lost: each column of the weight is multiplied by its gain.",
            ),
        ]
        refuse_known(found, mistakes, atol=1e-9)
        close(found, expected, f"The folded head, for V={vocab_size} and D={d_model},")
        n = F.layer_norm(torch.randn(3, d_model, generator=generator).double(), (d_model,))
        gap = ((n + ones) @ found.T - ((gain * n + shift) @ weight.T + bias)).abs().max().item()
        if gap > 1e-9:
            raise AssertionError(f"In float64 the logits still differ by {gap:.1e}.")
    return "fold_head is right: the same logits without a bias, to rounding."


EXERCISES = {
    "12": {
        "1: one merge": (check_merge_pair, ("merge_pair",)),
        "2: three matrices out of one": (check_split_c_attn, ("split_c_attn",)),
        "3: GPT-2's GELU": (check_gelu_new, ("gelu_new",)),
        "4: the names": (check_translate, ("translate",)),
        "5: a head without a bias": (check_fold_head, ("fold_head",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
