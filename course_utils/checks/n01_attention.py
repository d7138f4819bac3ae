"""What the check cells of the notebooks call: a verdict, or an AssertionError that says why not.

Of times they ask only what follows from the algorithm, with a wide margin, as ratios within one
run: `benchmark.measure_until` measures again if other programs were in the way.
"""

import copy
import functools
import math
import textwrap
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from . import attention as right
from . import generation as right_generation
from .benchmark import (
    CACHES,
    GROWING,
    LENGTHS,
    NO_CACHE,
    PREALLOCATED,
    operations,
    per_token,
    speed_up,
    totals,
)
from .cache_bugs import NoPositionOffset, diagnose
from .evaluation import Report, in_portions
from .transformer import DecoderLayer, DecoderOnlyTransformer, FeedForward

PASSES = "passes"


def verdict(check: Callable[..., str]) -> Callable[..., str]:
    """A check whose own AssertionError ends in one line, without the lines of its file.

    An error that an answer raises itself keeps its traceback, unless `ask` made a sentence of it.
    IPython leaves out a function that has a variable `__tracebackhide__`.
    """

    @functools.wraps(check)
    def judge(*answers: object) -> str:
        __tracebackhide__ = True
        try:
            return check(*answers)
        except AssertionError as error:
            raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
            if raised_in not in (check.__code__.co_filename, __file__):
                raise
            raise AssertionError(*error.args) from None

    return judge


ADVICE = {
    "unary ~: 'NoneType'": "mask may be None: nothing is hidden then.",
    "Boolean value of": "Whether there is a mask is asked by `if mask is not None`.",
    "index k out of range": "k may exceed the number of words: take min(k, logits.size(-1)).",
    "tuple indices": "The model returns two things: `logits, _ = model(ids)`.",
}


def ask(answer: Callable, *given: object) -> object:
    """What the answer returns; an error in it becomes a sentence with its line and the shapes."""
    try:
        return answer(*given)
    except NotImplementedError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError, AttributeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = [frame.line for frame in frames if "site-packages" not in frame.filename][-1]
        parts = [x for part in given for x in (part if isinstance(part, tuple) else (part,))]
        shapes = ", ".join(str(tuple(x.shape)) for x in parts if isinstance(x, Tensor))
        advice = next((advice for words, advice in ADVICE.items() if words in str(error)), "")
        raise AssertionError(
            f"Your function raised {type(error).__name__} at `{line}`: "
            f"{str(error).rstrip('.')}. Shapes given: {shapes}. {advice}".strip()
        ) from error


def check_report(report: Report) -> None:
    """Raise AssertionError, with the first problem found, unless every case passed."""
    if not report.all_passed:
        problem = (report.problems or ["no check was run"])[0]
        raise AssertionError(
            f"{report.title}: {report.num_passed} of {len(report.cases)} cases passed. {problem}"
        )


def slope(steps: pd.DataFrame, contender: str) -> float:
    """Seconds by which a token gets slower per token before it: a line through the medians."""
    part = steps[steps["contender"] == contender]
    return float(np.polyfit(part["tokens"], part["median"], 1)[0])


def _caches(table: pd.DataFrame) -> list[str]:
    return [name for name in CACHES if name != NO_CACHE and name in set(table["contender"])]


def check_counts(counts: pd.DataFrame, model: nn.Module, prompt_len: int) -> None:
    """Raise AssertionError unless every contender asks for what its name says, and no more.

    `counts` is from `benchmark.token_counts`, after a prompt of `prompt_len` tokens. Without a
    cache each token runs all tokens again; with one only the new ones. The growing cache writes all
    that it holds for every token, the preallocated one only what is new.
    """
    position_bytes = 2 * model.num_layers * model.token_embedding.weight[0].nbytes
    for row in counts.itertuples():
        end = prompt_len + row.tokens - 1
        new = end if row.contender == NO_CACHE or row.tokens == 1 else 1
        written = {GROWING: end * position_bytes, PREALLOCATED: new * position_bytes}
        asked = {
            "multiplications and additions": (row.operations, operations(model, new, end)),
            "bytes copied": (row.copied, written.get(row.contender, 0)),
        }
        for what, (found, expected) in asked.items():
            if found != expected:
                raise AssertionError(
                    f"{row.contender}, token {row.tokens}: {found:,} {what}, expected {expected:,} "
                    f"for {new} new of {end} tokens. Does the model feed only the new token, is "
                    "use_cache handed on, and is it that kind of cache?"
                )


def check_parts(parts: pd.DataFrame, factor: float = 2.0) -> None:
    """Raise AssertionError unless each layer, and the pass, takes less than `factor` times as long
    as the calls that it makes. `parts` is from `benchmark.parts`.
    """
    columns = ["whole", "direct"]
    layers = parts[parts["part"].str.startswith("layer")]
    passes = parts.groupby("round")[columns].sum().assign(part="the whole pass")
    for part, times in pd.concat([layers, passes]).groupby("part"):
        if (ratio := (times["whole"] / times["direct"]).median()) >= factor:
            whole, direct = 1e3 * times[columns].median()
            raise AssertionError(
                f"{part}: {whole:.2f} ms for one token, and the calls that it makes, one after the "
                f"other, {direct:.2f} ms: {ratio:.1f} times as long, expected less than "
                f"{factor:g} times. What else does it do, or what does it wait for?"
            )


def check_cached_steps_grow_slowly(steps: pd.DataFrame, factor: float = 2.0) -> None:
    """Raise AssertionError unless, with each cache, time per token grows `factor` times slower.

    `steps` is from `benchmark.per_token`. In operations it grows hundreds of times slower.
    """
    uncached = slope(steps, NO_CACHE)
    for contender in _caches(steps):
        cached = slope(steps, contender)
        if not (uncached > 0 and cached * factor < uncached):
            raise AssertionError(
                f"With the {contender}, a token gets {1e6 * cached:.2f} µs slower per token before "
                f"it; without a cache {1e6 * uncached:.2f} µs. Expected {factor:g} times less or "
                "better. Does the model feed only the new token, and is use_cache handed on?"
            )


def check_speed_up_rises(
    times: pd.DataFrame, short: int = 50, long: int = 1000, least: float = 1.5
) -> None:
    """Raise AssertionError unless each cache gains at least `least` times at `long` tokens, and
    more there than at `short`. `times` is from `benchmark.sweep`.
    """
    for contender in _caches(times):
        at_short, at_long = (speed_up(times, n, contender) for n in (short, long))
        if not (at_long > at_short and at_long > least):
            raise AssertionError(
                f"The {contender} makes {long} tokens {at_long:.2f} times faster and {short} "
                f"tokens {at_short:.2f} times. Expected at least {least:g} times at {long} tokens, "
                f"and more than at {short}. Is the cache used at all?"
            )


def check_total_is_polynomial(times: pd.DataFrame, length: int = 1000) -> None:
    """Raise AssertionError unless time without a cache grows like a power of the length.

    Twice the text takes at least 2 times as long (every token costs something) and at most 8 times
    (as many passes as tokens, pairs of positions in each): below 1.5 or above 10 something else
    was timed. An exponential's growth is squared with each doubling; a power's is not.
    `times` is from `benchmark.sweep`; each ratio is one of medians over the same rounds.
    """
    table = times[times["contender"] == NO_CACHE].pivot(
        index="round", columns="tokens", values="total"
    )
    before, last = ((table[n] / table[n // 2]).dropna().median() for n in (length // 2, length))
    if not 1.5 < last < 10:
        raise AssertionError(
            f"Without a cache, {length} tokens take {last:.1f} times as long as half of them; "
            "expected between 2 and 8 times. Was anything else timed with it?"
        )
    if not last < 0.8 * before**2:
        raise AssertionError(
            f"Without a cache, time grows {before:.1f} times up to {length // 2} tokens, and "
            f"{last:.1f} times to {length}: squared with each doubling, like an exponential. "
            "Was anything else timed with it?"
        )


def check_all_lengths_timed(times: pd.DataFrame, lengths: tuple[int, ...]) -> None:
    """Raise AssertionError unless every contender has a positive total at every length."""
    table = totals(times, lengths)
    if list(table.index) != list(lengths) or not (table > 0).all(axis=None):
        raise AssertionError(f"Timings are missing: wanted {lengths}, found {list(table.index)}.")


def check_sweep(times: pd.DataFrame) -> None:
    """Raise AssertionError unless the times of a sweep are what any processor must show.

    Every length is timed; a token gets slower by far less with a cache; the gain rises with the
    length; and the total without a cache grows like a power.
    """
    check_all_lengths_timed(times, LENGTHS)
    check_cached_steps_grow_slowly(per_token(times))
    check_speed_up_rises(times)
    check_total_is_polynomial(times)


def _close(found: object, expected: Tensor, what: str) -> None:
    """Raise AssertionError, saying how `found` differs, unless it is the tensor `expected`."""
    if found is None:
        raise AssertionError(f"{what} is None. Does the function return its result?")
    if not isinstance(found, Tensor):
        raise AssertionError(f"{what} is a {type(found).__name__}, expected a torch.Tensor.")
    if found.shape != expected.shape:
        raise AssertionError(
            f"{what} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}."
        )
    if found.dtype != expected.dtype:
        raise AssertionError(f"{what} has dtype {found.dtype}, expected {expected.dtype}.")
    if found.isnan().any() and not expected.isnan().any():
        raise AssertionError(f"{what} holds NaN (not a number), expected finite numbers.")
    wrong = ~torch.isclose(found, expected, rtol=1e-4, atol=1e-5)
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f"{what} is {found[at].item():.5g} at {list(at)}, expected {expected[at].item():.5g}."
        )


def _same(found: object, wrong: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether an answer is the one that a usual mistake gives."""
    if not isinstance(found, Tensor) or found.shape != wrong.shape:
        return False
    return torch.allclose(found.to(wrong.dtype), wrong, atol=tolerance)


@verdict
def check_softmax(softmax: Callable[[Tensor], Tensor]) -> str:
    """Notebook 01, exercise 1. Returns a verdict; raises AssertionError if it is not a softmax."""
    rows = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, -1.0]])
    before = rows.clone()
    found = softmax(rows)
    _unchanged((before,), (rows,))
    if _same(found, torch.softmax(rows, dim=0)):
        raise AssertionError("Columns sum to 1, rows should. Use dim=-1, the last dimension.")
    if _same(found, torch.softmax(rows.flatten(), 0).view_as(rows)):
        raise AssertionError(
            "All weights together sum to 1, each row should. Sum over dim=-1 with keepdim=True."
        )
    _close(found, torch.softmax(rows, -1), "softmax of small scores")
    for scale in (1e4, -1e4):
        _close(
            softmax(rows * scale),
            torch.softmax(rows * scale, -1),
            f"softmax of scores around {scale:g} (subtract each row's own maximum first)",
        )
    two_levels = torch.tensor([[1000.0, 999.0], [-1000.0, -999.0]])
    _close(
        softmax(two_levels),
        torch.softmax(two_levels, -1),
        "softmax of two rows on different levels (each row has its own maximum)",
    )
    batch = torch.linspace(-3, 3, 24).view(2, 3, 4)
    _close(softmax(batch), torch.softmax(batch, -1), "softmax of a (2, 3, 4) tensor")
    masked = torch.tensor([[-math.inf, -math.inf], [-math.inf, 0.0]])
    expected = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    _close(softmax(masked), expected, "softmax with a wholly masked row (its weights are 0)")
    half = torch.linspace(-8, 8, 200, dtype=torch.bfloat16)
    _close(
        softmax(half),
        torch.softmax(half, -1),
        "softmax in bfloat16 (compute in float32, convert at the end)",
    )
    fine = torch.linspace(-3, 3, 24, dtype=torch.float64)
    found = softmax(fine)
    _close(found, torch.softmax(fine, -1), "softmax in float64")
    if not torch.allclose(found, torch.softmax(fine, -1), rtol=0, atol=1e-12):
        raise AssertionError(
            "softmax in float64 is right to 7 digits only, as in float32. Convert 16-bit numbers "
            "to float32, and leave all others as they are."
        )
    return "softmax is right: small and huge scores, several rows, a masked row, bfloat16, float64."


@verdict
def check_causal_mask(causal_mask: Callable[[int, int], Tensor]) -> str:
    """Notebook 01, exercise 2. Returns a verdict; raises AssertionError on a wrong mask."""
    for num_queries, num_keys in ((4, 4), (1, 1), (6, 6), (2, 5), (1, 7)):
        name = f"causal_mask({num_queries}, {num_keys})"
        mask = causal_mask(num_queries, num_keys)
        expected = torch.ones(num_queries, num_keys, dtype=torch.bool)
        expected = expected.tril(num_keys - num_queries)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise AssertionError(f"{name} is {kind}, expected a tensor of dtype torch.bool.")
        if mask.shape != expected.shape:
            raise AssertionError(
                f"{name} has shape {tuple(mask.shape)}, expected {tuple(expected.shape)}: one row "
                "per query, one column per key."
            )
        if num_queries > 1 and torch.equal(mask, ~expected):
            raise AssertionError(f"{name} is inverted: True is where a query may look.")
        for query, key in (mask != expected).nonzero().tolist():
            position = num_keys - num_queries + query
            verb = "sees" if mask[query, key] else "does not see"
            raise AssertionError(
                f"In {name}, query {query} stands at position {position} and {verb} key {key}. It "
                f"should see keys 0 to {position}, its own included."
            )
    device = causal_mask(2, 5, torch.device("meta")).device.type
    if device != "meta":
        raise AssertionError(
            f"causal_mask(2, 5, device) made its mask on {device}, not on the device it was given. "
            "Hand `device` on to the functions that make tensors."
        )
    return "causal_mask is right: square, single, with more keys than queries, on any device."


def _unchanged(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> None:
    if not all(map(torch.equal, before, after)):
        raise AssertionError("A tensor that came in was changed. Work on a new one.")


@verdict
def check_attention(
    attention_weights: Callable[..., Tensor], attention: Callable[..., Tensor]
) -> str:
    """Notebook 01, exercise 3. Returns a verdict; raises AssertionError on wrong attention."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((5, 3), (2, 4, 6, 8)):
        q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
        before = q.clone(), k.clone(), v.clone()
        mask = right.causal_mask(shape[-2], shape[-2])
        for given in (None, mask):
            found = ask(attention_weights, q, k, given)
            _unchanged(before, (q, k, v))
            expected = right.attention_weights(q, k, given)
            _explain_weights(found, expected, q, k, given)
            _close(found, expected, f"attention weights for queries of shape {shape}")
            output = ask(attention, q, k, v, given)
            _unchanged(before, (q, k, v))
            _close(output, expected @ v, f"attention for queries of shape {shape}")
    return "attention is right: with and without a mask, one sequence and batches of heads."


def _explain_weights(
    found: object, expected: Tensor, q: Tensor, k: Tensor, mask: Tensor | None
) -> None:
    """Raise AssertionError for the usual mistakes in attention weights, in their own words."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return
    if mask is not None:
        seen = found.masked_fill(mask, 0)
        if seen.abs().max() > 1e-6:
            *_, row, column = (seen.abs() > 1e-6).nonzero()[0].tolist()
            weight = found[..., row, column].flatten()[0].item()
            raise AssertionError(
                f"Row {row} attends to position {column}: weight {weight:.2f}, must be 0. Is the "
                "mask True where a query may look, and is it used?"
            )
        total = found.sum(-1)
        if not torch.allclose(total, torch.ones_like(total), atol=1e-4):
            row = int((total - 1).abs().reshape(-1, total.size(-1)).amax(0).argmax())
            raise AssertionError(
                f"Row {row} of the weights does not sum to 1. Is the mask applied before the "
                "softmax, as a score of minus infinity?"
            )
    unscaled = q @ k.transpose(-2, -1)
    root = math.sqrt(q.size(-1))
    for scores, advice in (
        (unscaled, "The scores are not divided: they need a factor of 1 / sqrt(d)."),
        (unscaled / q.size(-1), "The scores are divided by d; divide by its square root."),
        (unscaled * root, "The scores are multiplied by sqrt(d); divide by it."),
        (
            unscaled.transpose(-2, -1) / root,
            "Queries and keys are exchanged: row i of the scores belongs to query i.",
        ),
    ):
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        if _same(found, torch.softmax(scores, -1)):
            raise AssertionError(advice)
    if mask is None and _same(found, torch.softmax(unscaled / root, -2)):
        raise AssertionError("Columns sum to 1, rows should: each query has 1 to give. Use dim=-1.")


@verdict
def check_multi_head(multi_head_class: type[nn.Module]) -> str:
    """Notebook 01, exercise 4. Returns a verdict; raises AssertionError on a wrong module."""
    for batch, seq_len, d_model, num_heads in ((1, 6, 4, 1), (2, 5, 12, 3), (3, 1, 8, 8)):
        torch.manual_seed(0)
        reference = right.MultiHeadAttention(d_model, num_heads)
        layer = multi_head_class(d_model, num_heads)
        _load(layer, reference)
        x = torch.randn(batch, seq_len, d_model)
        heads = layer.split_heads(x)
        shape = (batch, num_heads, seq_len, d_model // num_heads)
        expected = reference.split_heads(x)
        shuffled = isinstance(heads, Tensor) and heads.shape == shape and (heads != expected).any()
        if shuffled:
            raise AssertionError(
                "split_heads has the right shape, but the numbers are shuffled among positions "
                "and heads. First view as (batch, seq_len, heads, d_head), then transpose."
            )
        _close(heads, expected, f"split_heads of {tuple(x.shape)}")
        merged = layer.merge_heads(heads)
        if num_heads > 1 and seq_len > 1 and _same(merged, heads.reshape(x.shape)):
            raise AssertionError("merge_heads shuffles the numbers: transpose(1, 2) comes first.")
        _close(merged, x, "merge_heads of split_heads (x should come back)")
        found, q, k, v = layer(x), *(reference.split_heads(W(x)) for W in _projections(reference))
        mask = right.causal_mask(seq_len, seq_len)
        mixed = reference.merge_heads(right.attention(q, k, v, mask))
        unmasked = reference.W_o(reference.merge_heads(right.attention(q, k, v)))
        if _same(found, mixed):
            raise AssertionError("W_o is missing: it goes last, on the merged heads.")
        if seq_len > 1 and _same(found, unmasked):
            raise AssertionError("Nothing is masked: give attention a causal mask.")
        _close(found, reference(x), f"the output for {num_heads} heads")
    return "MultiHeadAttention is right: one head, three, and as many as dimensions."


def _projections(layer: nn.Module) -> tuple[nn.Module, ...]:
    return layer.W_q, layer.W_k, layer.W_v


@verdict
def check_layer_norm(layer_norm: Callable[..., Tensor]) -> str:
    """Notebook 02, exercise 1. Returns a verdict; raises AssertionError on a wrong layer norm."""
    torch.manual_seed(0)
    for shape in ((6, 3), (2, 5, 16)):
        x = 3 * torch.randn(shape) + 2
        weight, bias = torch.randn(shape[-1]), torch.randn(shape[-1])
        before = x.clone()
        found = layer_norm(x, weight, bias)
        _unchanged((before,), (x,))
        centred = x - x.mean(-1, keepdim=True)
        deviation = x.std(-1, keepdim=True)
        if _same(found, centred / deviation * weight + bias, 1e-4):
            raise AssertionError(
                "The variance is divided by d - 1; here it is divided by d (unbiased=False)."
            )
        for variance in (deviation.square(), x.var(-1, keepdim=True, unbiased=False)):
            if _same(found, centred / variance * weight + bias, 1e-3):
                raise AssertionError("Divide by the square root of the variance.")
        expected = F.layer_norm(x, shape[-1:], weight, bias)
        for wrong, advice in (
            (F.layer_norm(x, shape[-1:]), "weight and bias are not used."),
            (F.layer_norm(x, shape[-1:], weight), "The bias is not added."),
            (F.rms_norm(x, shape[-1:], weight) + bias, "The average is not subtracted."),
            (
                F.layer_norm(x, shape) * weight + bias,
                "Average and variance are of the whole tensor; each position has its own (dim=-1).",
            ),
        ):
            if _same(found, wrong, 1e-4):
                raise AssertionError(advice)
        _close(found, expected, f"layer_norm of shape {shape}")
    same = torch.full((2, 4), 7.0)
    _close(
        layer_norm(same, torch.ones(4), torch.zeros(4)),
        torch.zeros(2, 4),
        "layer_norm of equal numbers (their variance is 0: add eps to it)",
    )
    small, scale, shift = 1e-3 * torch.randn(3, 8), torch.ones(8), torch.zeros(8)
    expected = F.layer_norm(small, (8,), scale, shift)
    _close(
        layer_norm(small, scale, shift),
        expected,
        "layer_norm of numbers near 0.001 (eps goes under the root, beside the variance)",
    )
    _close(
        layer_norm(small, scale, shift, 0.5),
        F.layer_norm(small, (8,), scale, shift, 0.5),
        "layer_norm with eps=0.5 (use the eps that was handed in)",
    )
    return "layer_norm is right: one sequence, a batch, small numbers, numbers that are all equal."


@verdict
def check_feed_forward(feed_forward_class: type[nn.Module]) -> str:
    """Notebook 02, exercise 2. Returns a verdict; raises AssertionError on a wrong module."""
    torch.manual_seed(0)
    reference = FeedForward(8, 32)
    layer = feed_forward_class(8, 32)
    _load(layer, reference)
    x = torch.randn(2, 5, 8)
    found = layer(x)
    for wrong, advice in (
        (reference.fc2(reference.fc1(x)), "The ReLU is missing"),
        (reference.fc2(reference.fc1(x)).relu(), "The ReLU comes last, where nothing may be cut"),
        (reference(x).relu(), "There is a second ReLU, after fc2"),
    ):
        if _same(found, wrong):
            raise AssertionError(f"{advice}: fc1, then torch.relu, then fc2.")
    _close(found, reference(x), "the output (fc1, then torch.relu, then fc2)")
    return "FeedForward is right."


@verdict
def check_decoder_layer(layer_class: type[nn.Module]) -> str:
    """Notebook 02, exercise 3. Returns a verdict; raises AssertionError on a wrong layer."""
    torch.manual_seed(0)
    reference = DecoderLayer(12, 24, num_heads=3, dropout=0.0)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    layer = layer_class(12, 24, num_heads=3, dropout=0.0)
    _load(layer, reference)
    x = torch.randn(2, 5, 12)
    before = x.clone()
    found, r = layer(x), reference
    _unchanged((before,), (x,))
    one_head = DecoderLayer(12, 24, dropout=0.0)
    one_head.load_state_dict(r.state_dict())
    attended = x + r.attention(r.norm1(x))
    after_attention = r.norm1(x + r.attention(x))
    usual = {
        "The attention has one head: hand num_heads on to it.": one_head(x),
        "norm1 is used twice: the feed-forward part has its own, norm2.": attended
        + r.feed_forward(r.norm1(attended)),
        "The norms come after the additions (post-norm). Here each part gets a normed copy of the "
        "stream, and the stream itself is never normed (pre-norm).": r.norm2(
            after_attention + r.feed_forward(after_attention)
        ),
        "The stream is lost: add each part's output to x.": r.feed_forward(
            r.norm2(r.attention(r.norm1(x)))
        ),
        "Both parts read the same x: the second one reads what the first one has left.": attended
        + r.feed_forward(r.norm2(x)),
        "The stream itself is normed. A norm makes a copy for its part to read; add to x.": r.norm2(
            r.norm1(x) + r.attention(r.norm1(x))
        )
        + r.feed_forward(r.norm2(r.norm1(x) + r.attention(r.norm1(x)))),
        "norm1 belongs to the attention and norm2 to the feed-forward part; they are exchanged.": x
        + r.attention(r.norm2(x))
        + r.feed_forward(r.norm1(x + r.attention(r.norm2(x)))),
    }
    for advice, wrong in usual.items():
        if _same(found, wrong):
            raise AssertionError(advice)
    _close(found, reference(x), "the output of the layer")
    if not _same(layer_class(12, 24, num_heads=3, dropout=1.0).train()(x), x):
        raise AssertionError(
            "With dropout=1.0, in training, all that is added is dropped and x should come out as "
            "it went in. Dropout goes on what each part adds, and nowhere else."
        )
    return "DecoderLayer is right: pre-norm, two norms, two additions, dropout on what is added."


@verdict
def check_model(model_class: type[nn.Module]) -> str:
    """Notebook 02, exercise 4. Returns a verdict; raises AssertionError on a wrong model."""
    torch.manual_seed(0)
    shape = {"vocab_size": 20, "d_model": 12, "d_ff": 24, "num_layers": 2, "max_seq_len": 10}
    reference = DecoderOnlyTransformer(**shape, num_heads=3, dropout=0.0).eval()
    model = model_class(**shape, num_heads=3, dropout=0.0).eval()
    _load(model, reference)
    for seq_len in (6, 1, 10):
        ids = torch.randint(20, (2, seq_len))
        found = ask(model, ids)
        if not isinstance(found, tuple) or len(found) != 2:
            raise AssertionError("forward returns two things: the logits, and None.")
        logits, _ = found
        _explain_logits(logits, reference, ids)
        _close(logits, reference(ids)[0], f"the logits for ids of shape {tuple(ids.shape)}")
    try:
        model(torch.zeros(1, 11, dtype=torch.long))
    except Exception:
        return "DecoderOnlyTransformer is right, up to max_seq_len and no further."
    raise AssertionError("11 tokens went through a model with max_seq_len=10. Is there a position?")


def _explain_logits(logits: object, r: DecoderOnlyTransformer, ids: Tensor) -> None:
    """Raise AssertionError for what usually goes wrong in the model, in its own words."""
    if not isinstance(logits, Tensor) or ids.size(1) != 6:
        return

    def rest(x: Tensor, layers: list[nn.Module]) -> Tensor:
        return r.output_projection(r.norm(nn.Sequential(*layers)(x)))

    x, (first, last) = r.embed(ids), r.layers
    one_head = DecoderOnlyTransformer(20, 12, 24, 2, 10, dropout=0.0).eval()
    one_head.load_state_dict(r.state_dict())
    for wrong, advice in (
        (
            rest(r.token_embedding(ids), r.layers),
            "The position embeddings are not added to the token's.",
        ),
        (rest(r.embed(ids, 1), r.layers), "The first token stands at position 0, not at 1."),
        (
            r.output_projection(last(first(x))),
            "The last norm, before the output projection, is missing.",
        ),
        (rest(x, []), "The layers are not used: the result of each goes on, x = layer(x)."),
        (rest(x, [first]), "Only the first layer is used. Return after the loop, not in it."),
        (
            rest(x, [last]),
            "Each layer gets the same x: the next one needs the result, x = layer(x).",
        ),
        (rest(x, [first, first]), "The first layer is used each time: use the loop's own."),
        (rest(x, [last, last]), "All layers are one object. Make a new one for each in the list."),
        (one_head(ids)[0], "The layers have one head: hand num_heads on to them."),
        (r(ids)[0].softmax(-1), "Return the logits as they are: no softmax at the end."),
    ):
        if _same(logits, wrong):
            raise AssertionError(advice)


@verdict
def check_keep_top_k(keep_top_k: Callable[[Tensor, int], Tensor]) -> str:
    """Notebook 03, exercise 1. Returns a verdict; raises AssertionError on a wrong cut."""
    logits = torch.tensor([[1.0, 4.0, 2.0, 3.0, 0.0], [-5.0, -1.0, -2.0, -4.0, -3.0]])
    before = logits.clone()
    for k in (1, 2, 3, 5, 9):
        found = ask(keep_top_k, logits, k)
        _unchanged((before,), (logits,))
        expected = right_generation.keep_top_k(logits, k)
        _explain_kept(found, expected, logits, f"keep_top_k with k={k}")
    tied = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    expected = torch.tensor([[2.0, 1.0, 1.0, -math.inf]])
    _explain_kept(keep_top_k(tied, 2), expected, tied, "keep_top_k with k=2 and two words tied")
    return "keep_top_k is right: row by row, ties stay, and k may exceed the vocabulary."


def _explain_kept(found: object, expected: Tensor, logits: Tensor, what: str) -> None:
    """Raise AssertionError, naming the words, unless the same words are left as in `expected`."""
    if isinstance(found, Tensor) and found.shape == expected.shape:
        for row in range(len(logits)):
            kept, wanted = (
                [i for i, x in enumerate(t[row].tolist()) if x != -math.inf]
                for t in (found, expected)
            )
            if kept != wanted:
                numbers = [round(x, 2) for x in logits[row].tolist()]
                raise AssertionError(
                    f"{what}: of the logits {numbers}, those at {wanted} stay and all others "
                    f"become minus infinity; yours leaves {kept}."
                )
    _close(found, expected, what)


@verdict
def check_keep_top_p(keep_top_p: Callable[[Tensor, float], Tensor]) -> str:
    """Notebook 03, exercise 2. Returns a verdict; raises AssertionError on a wrong nucleus."""
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3], [0.26, 0.24, 0.27, 0.23]]).log()
    before = logits.clone()
    for p in (0.3, 0.6, 0.9, 0.99, 1.0):
        found = keep_top_p(logits, p)
        _unchanged((before,), (logits,))
        expected = right_generation.keep_top_p(logits, p)
        empty = isinstance(found, Tensor) and (found == -math.inf).all(-1).any()
        if empty:
            raise AssertionError(
                f"keep_top_p with p={p}: no word is left in a row. The word that reaches p belongs "
                "to the nucleus: ask whether the words likelier than it have reached p already."
            )
        _explain_nucleus(found, expected, torch.softmax(logits, -1), p)
        _explain_kept(found, expected, logits, f"keep_top_p with p={p}")
    kept = int((keep_top_p(torch.zeros(1, 4), 0.5) > -math.inf).sum())
    if kept != 2:
        raise AssertionError(
            f"keep_top_p with p=0.5 leaves {kept} of four equally likely words. Two of them reach "
            "0.5: a word goes if those before it add up to p exactly, too."
        )
    return "keep_top_p is right: the fewest words that reach p, in their own places, never none."


def _explain_nucleus(found: object, expected: Tensor, probabilities: Tensor, p: float) -> None:
    """Raise AssertionError, in probabilities, unless the same words are kept as in `expected`."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return
    for row, shares in enumerate(probabilities.tolist()):
        kept, wanted = (
            [i for i, x in enumerate(t[row].tolist()) if x != -math.inf] for t in (found, expected)
        )
        if kept != wanted:
            advice = ""
            if len(kept) == len(wanted):
                advice = " The number is right: are the words back in their own places?"
            raise AssertionError(
                f"keep_top_p with p={p}: of words with the probabilities "
                f"{[round(x, 2) for x in shares]}, those at {wanted} stay; yours leaves {kept}."
                f"{advice}"
            )


@verdict
def check_next_token(next_token: Callable[..., Tensor]) -> str:
    """Notebook 03, exercise 3. Returns a verdict; raises AssertionError on a wrong choice."""
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.5, -1.0, 0.0, 2.0]])
    before = logits.clone()
    try:
        greedy = next_token(logits, 0)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise AssertionError(
            f"At temperature 0 something goes wrong ({error}). Nothing is divided by 0 there: "
            "take the likeliest token and return."
        ) from None
    _close(greedy, torch.tensor([1, 3]), "the greedy token of each row")
    alone = next_token(logits[:1], 2.0, generator=torch.Generator().manual_seed(7))
    if not isinstance(alone, Tensor) or alone.shape != (1,):
        shape = tuple(alone.shape) if isinstance(alone, Tensor) else type(alone).__name__
        raise AssertionError(
            f"For one row, next_token gave {shape}, expected (1,): one id per row."
        )
    _unchanged((before,), (logits,))
    row = torch.tensor([2.0, 1.5, 1.0, 0.0])
    for temperature, top_k, top_p in (
        (1.0, None, None),
        (0.5, None, None),
        (2.0, None, None),
        (1.0, 2, None),
        (2.0, None, 0.7),
        (1.0, 2, 0.6),
        (1.0, 3, 0.83),
    ):
        _check_draws(next_token, row, temperature, top_k, top_p)
    first, again, other = (
        next_token(logits.repeat(50, 1), 1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (7, 7, 8)
    )
    if not torch.equal(first, again):
        raise AssertionError("The same seed gave other tokens. Is the generator handed on?")
    if torch.equal(first, other):
        raise AssertionError(
            "Another seed gave the same tokens. Draw with the generator that was handed in, and "
            "set no seed of your own."
        )
    return "next_token is right: greedy, three temperatures, top-k, top-p, both, and repeatable."


def _check_draws(
    next_token: Callable[..., Tensor],
    row: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    draws: int = 20_000,
) -> None:
    """Compare how often each token is drawn with its probability (to 5 standard deviations)."""
    options = f"temperature={temperature}, top_k={top_k}, top_p={top_p}"
    generator = torch.Generator().manual_seed(0)
    tokens = next_token(
        row.repeat(draws, 1), temperature, top_k=top_k, top_p=top_p, generator=generator
    )
    if not isinstance(tokens, Tensor) or tokens.shape != (draws,):
        shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise AssertionError(f"For {draws} rows, next_token gave {shape}, expected ({draws},).")
    if tokens.dtype != torch.int64:
        raise AssertionError(f"next_token gave {tokens.dtype}; a token id is a torch.int64.")
    scaled = row[None] / temperature
    if top_k is not None:
        scaled = right_generation.keep_top_k(scaled, top_k)
    if top_p is not None:
        scaled = right_generation.keep_top_p(scaled, top_p)
    expected = torch.softmax(scaled, -1)[0]
    share = torch.bincount(tokens, minlength=len(row)) / draws
    spread = (expected * (1 - expected) / draws).sqrt()
    if ((share - expected).abs() > 5 * spread + 1e-9).any():
        advice = ""
        upside_down = torch.softmax(row * temperature, -1)
        if temperature != 1 and torch.allclose(share, upside_down, atol=0.02):
            advice = " The logits are multiplied by the temperature; divide by it."
        if top_k is None and top_p is not None:
            cut = right_generation.keep_top_p(row[None], top_p)[0] / temperature
            if torch.allclose(share, torch.softmax(cut, -1), atol=0.02):
                advice = " The temperature comes first; it changes which words reach p."
        raise AssertionError(
            f"With {options} the tokens 0 to 3 came up with shares "
            f"{[round(s, 2) for s in share.tolist()]}, expected "
            f"{[round(s, 2) for s in expected.tolist()]}.{advice}"
        )


@verdict
def check_generate(generate: Callable[..., Tensor]) -> str:
    """Notebook 03, exercise 4. Returns a verdict; raises AssertionError on a wrong loop."""
    model = _tiny_model()
    fed = []
    model.register_forward_pre_hook(lambda _, args: fed.append(args[0].size(1)))
    for batch, prompt_len, new in ((1, 3, 5), (2, 4, 3), (1, 1, 1), (1, 2, 14), (1, 2, 0)):
        prompt = torch.arange(batch * prompt_len).view(batch, prompt_len) % 20
        fed.clear()
        found = ask(generate, model, prompt, new, 0)
        shape = (batch, prompt_len + new)
        if not isinstance(found, Tensor) or found.shape != shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise AssertionError(
                f"A prompt of shape {(batch, prompt_len)} and {new} new tokens gave {got}, "
                f"expected {shape}: prompt and continuation together."
            )
        wanted = list(range(prompt_len, prompt_len + new))
        if fed != wanted:
            raise AssertionError(
                f"The model was run on {fed} tokens, expected {wanted}: one run per new token, "
                "each on the whole text so far."
            )
        expected = right_generation.generate(model, prompt, new, 0, use_cache=False)
        _same_tokens(found, expected, "generate with temperature=0")
    greedy, *draws = (
        generate(model, prompt, 12, heat, generator=torch.Generator().manual_seed(1))
        for heat in (0, 5.0, 5.0)
    )
    if torch.equal(greedy, draws[0]):
        raise AssertionError("At temperature 5 the words are the greedy ones. Is it handed on?")
    if not torch.equal(*draws):
        raise AssertionError("The same seed gave other words. Is the generator handed on?")
    narrow = generate(model, prompt, 12, 5.0, top_k=1)
    if not torch.equal(narrow, greedy):
        raise AssertionError(
            "With top_k=1 only the likeliest word is left, at any temperature; yours draws others. "
            "Do all sampling options go on to next_token?"
        )
    return "generate is right: whole text each time, one sequence and two, greedy, drawn, cut."


def _same_tokens(found: object, expected: Tensor, what: str) -> None:
    """Raise AssertionError, with both rows, at the first row of ids that is not as expected."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return _close(found, expected, what)
    for row, right_row in zip(found.tolist(), expected.tolist(), strict=True):
        if row != right_row:
            raise AssertionError(f"{what} gave the tokens {row}, expected {right_row}.")
    _close(found, expected, what)


@verdict
def check_beam_search(beam_search: Callable[..., tuple[Tensor, Tensor]]) -> str:
    """Notebook 03, exercise 5. Returns a verdict; raises AssertionError on a wrong search."""
    model = _tiny_model(vocab_size=5)
    prompt = torch.tensor([[1, 3, 2]])
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    texts = torch.cat([prompt.expand(len(every), -1), every], dim=1)
    with torch.no_grad():
        logs = torch.log_softmax(model(texts)[0][:, 2:-1], -1)
    exact = logs.gather(-1, every[..., None]).sum((1, 2))
    for beams in (1, 2, 25):
        found = beam_search(model, prompt, 3, beams)
        if not isinstance(found, tuple) or len(found) != 2:
            raise AssertionError("beam_search returns two things: ids and scores.")
        ids, scores = found
        expected_ids, best = right_generation.beam_search(model, prompt, 3, beams, False)
        if isinstance(ids, Tensor) and ids.shape == expected_ids.shape:
            _explain_beams(ids, scores, beams, exact, texts)
        _same_tokens(ids, expected_ids, f"the search with num_beams={beams}, best text first,")
        _close(scores, best, f"the score, with num_beams={beams},")
    return "beam_search is right: with 1, 2 and 25 beams it finds the texts, and scores them truly."


def _explain_beams(ids: Tensor, scores: object, beams: int, exact: Tensor, texts: Tensor) -> None:
    """Raise AssertionError for what goes wrong in a search, in its own words.

    `exact` are the log-probabilities of all possible `texts`.
    """
    options = f"With num_beams={beams}"
    if (ids.min() < 0) or (ids.max() >= 5):
        raise AssertionError(
            f"{options} a text holds token {ids.max().item()}; this small model has 5. Divide by "
            "the number of columns of the logits, not by a number written down."
        )
    if len(ids.unique(dim=0)) < len(ids):
        raise AssertionError(
            f"{options} two texts are the same. At first there is one beam, so there is one row "
            "(or all others have a score of minus infinity)."
        )
    true = torch.stack([exact[(texts == row).all(1)].sum() for row in ids])
    if not isinstance(scores, Tensor) or scores.shape != true.shape:
        return
    if _same(scores, true, 1e-4):
        if (true.sort(descending=True).values != true).any():
            raise AssertionError(f"{options} the texts are not in order: best first.")
        return
    wrong = int((~torch.isclose(scores.double(), true.double(), atol=1e-4)).nonzero()[0])
    raise AssertionError(
        f"{options} the text {ids[wrong].tolist()} has the score {scores[wrong].item():.3f}; the "
        f"logarithms of its words' probabilities add up to {true[wrong].item():.3f}. Is it the sum "
        "over all new words, and does each beam's whole text go with its child (ids[beam])?"
    )


@verdict
def check_cache(cache_class: type) -> str:
    """Notebook 04, exercises 1 and 5. Returns a verdict; raises AssertionError on a wrong cache."""
    name = cache_class.__name__
    for batch in (1, 2):
        model = _tiny_model()
        cache = cache_class(model, batch)
        whole = torch.randn(2, model.num_layers, batch, model.num_heads, 9, model.d_head)
        at = 0
        for portion in (3, 1, 2, 3):
            for layer in range(model.num_layers):
                new = whole[:, layer, ..., at : at + portion, :].clone()
                before = new.clone()
                found = cache.append(layer, *new)
                _unchanged((before,), (new,))
                if not isinstance(found, tuple) or len(found) != 2:
                    raise AssertionError(
                        f"{name}.append returns two tensors: all keys, all values."
                    )
                for what, tensor, kind in zip(("keys", "values"), found, whole, strict=True):
                    expected = kind[layer, ..., : at + portion, :]
                    if _same(tensor, kind[layer, ..., at : at + portion, :]) and at:
                        raise AssertionError(
                            f"{name}.append returns only the new {what}. Attention needs those of "
                            "all positions so far."
                        )
                    _close(
                        tensor,
                        expected,
                        f"{name}: after {at} positions and {portion} more, the tensor of {what} "
                        f"that append returns for layer {layer} (the oldest position first)",
                    )
            at += portion
            if cache.length != at:
                raise AssertionError(f"{name}.length is {cache.length} after {at} positions.")
    return f"{name} is right: portions of 3, 1, 2 and 3 positions, two layers, one row and two."


@verdict
def check_preallocated(cache_class: type) -> str:
    """Notebook 04, exercise 5: `check_cache`, and that nothing is allocated after the start."""
    verdict = check_cache(cache_class)
    model = _tiny_model()
    cache = cache_class(model, 1)
    places = set()
    for _ in range(3):
        k, v = torch.randn(2, 1, model.num_heads, 1, model.d_head)
        keys, values = cache.append(0, k, v)
        places.add((keys.data_ptr(), values.data_ptr()))
    if len(places) > 1:
        raise AssertionError(
            "The returned keys lie elsewhere in memory after each append, so they were copied. "
            "Return a slice of the cache's own tensor, which is a view."
        )
    return verdict + " Nothing is copied."


@verdict
def check_cached_attention(attention_class: type[nn.Module], cache_class: type) -> str:
    """Notebook 04, exercise 2. Returns a verdict; raises AssertionError on wrong attention."""
    model = _tiny_model()
    reference = right.MultiHeadAttention(12, 3)
    layer = attention_class(12, 3)
    _load(layer, reference)
    x = torch.randn(2, 7, 12)
    expected = reference(x)
    _close(layer(x), expected, "without a cache, the output")
    for portions in ((7,), (4, 1, 1, 1), (1,) * 7, (2, 5)):
        cache = cache_class(model, 2)
        cache.append(0, *torch.randn(2, 2, 3, 3, 4))
        found = torch.cat([layer(part, cache, 1) for part in x.split(portions, dim=1)], dim=1)
        alone = torch.cat([reference(part) for part in x.split(portions, dim=1)], dim=1)
        if len(portions) > 1 and _same(found, alone):
            raise AssertionError(
                "Each portion attends to itself alone. Do q and the *returned* keys and values go "
                "into the attention?"
            )
        _close(
            found,
            expected,
            f"in portions of {portions}, as layer 1 of a cache whose layer 0 is filled, the output",
        )
    return "MultiHeadAttention is right with a cache: at once, one by one, two and then five."


@verdict
def check_cached_model(model_class: type[nn.Module]) -> str:
    """Notebook 04, exercise 3. Returns a verdict; raises AssertionError on a wrong model."""
    model = model_class(20, 12, 24, 2, 16, num_heads=3, dropout=0.0).eval()
    reference = _tiny_model()
    _load(model, reference)
    restart = NoPositionOffset(20, 12, 24, 2, 16, num_heads=3, dropout=0.0).eval()
    _load(restart, reference)
    ids = torch.arange(12).view(1, 12)
    with torch.no_grad():
        expected = reference(ids)[0]
        if not isinstance(model(ids), tuple):
            raise AssertionError("forward returns two things: the logits, and past_kv.")
        _close(model(ids)[0], expected, "without a cache, a logit")
        if model(ids)[1] is not None:
            raise AssertionError("forward returned a cache although use_cache=False.")
        if model(ids, use_cache=True)[1] is None:
            raise AssertionError("forward returned no cache although use_cache=True.")
        for portions in ((12,), (7, 1, 1, 1, 1, 1), (1,) * 12, (5, 7)):
            found = in_portions(model, ids, portions)
            if len(portions) > 1 and _same(found, in_portions(restart, ids, portions)):
                raise AssertionError(
                    "Each portion starts at position 0 again: after a prefill of 7, the next token "
                    "stands at position 7. Hand past_kv.length to embed, and add it there."
                )
            if len(portions) > 1 and _same(found, _without_the_past(reference, ids, portions)):
                raise AssertionError(
                    "Each portion sees itself alone. Every layer needs past_kv, and its own number."
                )
            if not _same(found, expected, 1e-4):
                raise AssertionError(
                    f"In portions of {portions} the logits are not the uncached ones. Does each "
                    f"layer get past_kv and its own number? {diagnose(model, reference)}"
                )
    return "The cached model is right on 12 tokens in four portionings. kv_evaluate comes below."


def _without_the_past(model: nn.Module, ids: Tensor, portions: tuple[int, ...]) -> Tensor:
    """Logits of portions at the right positions that do not see each other."""
    parts, start = [], 0
    for part in ids.split(portions, dim=1):
        x = nn.Sequential(*model.layers)(model.embed(part, start))
        parts.append(model.output_projection(model.norm(x)))
        start += part.size(1)
    return torch.cat(parts, dim=1)


@verdict
def check_decode_loop(decode_loop: Callable[..., Iterator[Tensor]]) -> str:
    """Notebook 04, exercise 4. Returns a verdict; raises AssertionError on a wrong loop."""
    model = _tiny_model()
    fed = []
    model.register_forward_pre_hook(lambda _, args, kwargs: fed.append(args[0]), with_kwargs=True)
    prompt = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])
    expected = right_generation.generate(model, prompt, 6, 0, use_cache=False)
    for use_cache, sizes in ((True, [5, 1, 1, 1, 1, 1]), (False, [5, 6, 7, 8, 9, 10])):
        fed.clear()
        tokens, refused = [], None
        try:
            tokens = list(decode_loop(model, prompt, 6, use_cache, temperature=0))
        except ValueError as error:
            refused = error
        got = [ids.size(1) for ids in fed]
        if got != sizes:
            why = "prefill, then only the new token" if use_cache else "the whole text each time"
            raise AssertionError(
                f"With use_cache={use_cache} the model was run on {got} tokens, expected {sizes}: "
                f"{why}."
            )
        if refused:
            raise refused
        _close(
            torch.stack(tokens, dim=1),
            expected[:, 5:],
            f"with use_cache={use_cache}, a greedy token (does what a call returned as past_kv go "
            "into the next call?)",
        )
    return (
        "decode_loop is right: with a cache only what is new goes in, and the words are the same."
    )


@verdict
def check_reorder(cache_class: type) -> str:
    """Notebook 04, exercise 10. Returns a verdict; raises AssertionError on a wrong reorder."""
    model = _tiny_model()
    ids = torch.arange(18).view(3, 6)
    rows = torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        cache = cache_class(model, 3)
        model(ids[:, :4], past_kv=cache, use_cache=True)
        cache.reorder(rows)
        if cache.batch_size != 5:
            raise AssertionError(
                f"After reorder with 5 rows, batch_size is {cache.batch_size}; expected 5."
            )
        try:
            found, _ = model(ids[rows, 4:], past_kv=cache, use_cache=True)
        except RuntimeError as error:
            raise AssertionError(
                f"After reorder with 5 rows nothing fits any more ({error}). Do keys *and* values "
                "move, in every layer?"
            ) from None
        expected = model(ids[rows])[0][:, 4:]
    _close(found, expected, "after reorder([2, 0, 0, 1, 2]) of three rows, a logit of what follows")
    return f"{cache_class.__name__}.reorder is right: rows move, die and multiply, in every layer."


@verdict
def check_cured(model_class: type[nn.Module]) -> str:
    """Notebook 04, exercises 6 to 9. Returns a verdict, or raises AssertionError: a diagnosis."""
    reference = _tiny_model(max_seq_len=64)
    model = model_class(20, 12, 24, 2, 64, num_heads=3, dropout=0.0).eval()
    _load(model, reference)
    hint = _seen_in_the_cache(copy.deepcopy(model))
    diagnosis = diagnose(model, reference)
    if not diagnosis.right:
        raise AssertionError(f"{model_class.__name__} is still ill. {hint}{diagnosis}")
    return f"{model_class.__name__} is healthy: {diagnosis}"


def _seen_in_the_cache(model: nn.Module) -> str:
    """A sentence on a cache that is missing or counts wrongly after 6 tokens, or nothing."""
    try:
        _, cache = model(torch.arange(6).view(1, 6), use_cache=True)
        if cache is None:
            return "No cache comes back: does the function return the one it makes? "
        if cache.length == 6 * model.num_layers:
            return f"After 6 tokens length is {cache.length}: count them in one layer only. "
    except Exception as error:
        if "NoneType" in str(error):
            return "Something is None: does each function end in `return`? "
    return ""


@verdict
def check_token_times(token_times: Callable[..., list[float]]) -> str:
    """Notebook 05, exercise 1. Returns a verdict; raises AssertionError on a wrong stop-watch."""
    clock = _FakeClock()
    starts = []

    def tokens():
        for seconds in (4.0, 1.0, 1.0, 2.0):
            clock.now += seconds
            yield "token"

    def start():
        starts.append(clock.now)
        clock.now += 1.0
        return tokens()

    found = token_times(start, clock)
    if not isinstance(found, list):
        raise AssertionError(
            f"token_times gave a {type(found).__name__}, expected a list with one time per token."
        )
    if clock.now <= 101.0:
        raise AssertionError("No token was made: loop over start(), which yields them.")
    if len(starts) > 1:
        raise AssertionError(
            f"start() was called {len(starts)} times, and each call begins a generation. Call it "
            "once."
        )
    for wrong, advice in (
        ([5.0, 1.0, 1.0, 2.0], "These are the times between tokens; wanted: since the start."),
        ([0.0, 1.0, 2.0, 4.0], "The first token took 5 s: read the clock before the loop starts."),
        ([4.0, 5.0, 6.0, 8.0], "Read the clock before start() is called: it already does work."),
        ([9.0], "Wanted: one time for each token, not only for the last."),
        ([9.0] * 4, "All tokens were made before the clock was read. Read it as each one comes."),
        ([105.0, 106.0, 107.0, 109.0], "Subtract what the clock showed at the start."),
    ):
        if found == wrong:
            raise AssertionError(advice)
    if found != [5.0, 6.0, 7.0, 9.0]:
        raise AssertionError(
            "A generation took 5 s for its first token, then 1, 1 and 2 s. Expected the times "
            f"[5.0, 6.0, 7.0, 9.0] by the clock that was handed in, found {found}."
        )
    return "token_times is right: one time for each token, counted from the start."


class _FakeClock:
    """A clock that shows what it is told to, and whose tasks take known times."""

    def __init__(self) -> None:
        self.now = 100.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def task(self, name: str, seconds: float, first: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds if name in self.log else first
            self.log.append(name)

        return run


@verdict
def check_measure(measure: Callable[..., dict[str, list[float]]]) -> str:
    """Notebook 05, exercise 2. Returns a verdict; raises AssertionError if times are unfair."""
    clock = _FakeClock()
    tasks = {"A": clock.task("A", 2.0, 50.0), "B": clock.task("B", 3.0, 80.0)}
    found = measure(tasks, 3, clock)
    if not isinstance(found, dict) or set(found) != {"A", "B"}:
        raise AssertionError("measure returns a dict with a list of seconds for each name.")
    for name, seconds in found.items():
        if not isinstance(seconds, list):
            raise AssertionError(
                f"The seconds of {name} are a {type(seconds).__name__}, expected a list: all of "
                "them, in order."
            )
    if 50.0 in found["A"] or 80.0 in found["B"]:
        raise AssertionError(
            "The first run of each task, which is slow, is among the times. Run each task once "
            "before the rounds, and throw that time away."
        )
    if len(clock.log) != 8:
        raise AssertionError(
            f"Two tasks and three rounds made {len(clock.log)} runs, expected 8: one warm-up each, "
            "and three rounds of two."
        )
    if clock.log[2:] not in (["A", "B"] * 3, ["B", "A"] * 3):
        raise AssertionError(
            f"The runs came in the order {' '.join(clock.log)}. After the warm-up the tasks take "
            "turns: A B A B A B."
        )
    if found["A"] is found["B"]:
        raise AssertionError(
            "Both names have one and the same list (dict.fromkeys does that). Make one for each."
        )
    if all(0 < seconds < 0.1 for seconds in found["A"] + found["B"]):
        raise AssertionError("These are real seconds. Read the clock that was handed in: clock().")
    if found != {"A": [2.0] * 3, "B": [3.0] * 3}:
        raise AssertionError(
            f"A takes 2 s and B 3 s, three times each; found {found}. Is the clock read just "
            "before and just after each run?"
        )
    return "measure is right: a warm-up for each, then turns, and every time is kept."


@verdict
def check_operations(operations: Callable[[nn.Module, int, int], int]) -> str:
    """Notebook 05, exercise 3. Returns a verdict; raises AssertionError on a wrong count."""
    for shape in ((20, 12, 24, 2, 16), (50, 16, 64, 3, 32)):
        model = DecoderOnlyTransformer(*shape, num_heads=2, dropout=0.0).eval()
        for new, stored in ((6, 0), (1, 9), (3, 4), (1, 0)):
            with torch.no_grad():
                _, cache = model(torch.ones(1, max(stored, 1), dtype=torch.long), use_cache=True)
                cache = cache if stored else None
                with FlopCounterMode(display=False) as counter:
                    model(torch.ones(1, new, dtype=torch.long), past_kv=cache, use_cache=True)
            found, counted = operations(model, new, new + stored), counter.get_total_flops()
            if not isinstance(found, int | float):
                raise AssertionError(f"operations gave {found!r}, expected a number.")
            attended = 2 * model.num_layers * 2 * new * (new + stored)
            attended *= model.output_projection.in_features
            linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
            tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
            vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
            biases = sum(m.bias.numel() for m in linears if m.bias is not None)
            matrices = "P is the weights of the matrices, which are in the nn.Linear modules."
            wrong = {
                tables + vectors: "All parameters are counted. Embeddings are looked up and biases "
                f"added: {matrices}",
                tables: f"The embeddings are counted. They are looked up: {matrices}",
                vectors: f"Biases and norms are counted. They are no matrices: {matrices}",
                biases: f"The biases are counted. They are added: {matrices}",
                tables + biases: f"Embeddings and biases are counted: {matrices}",
            }
            if (advice := wrong.get((found - counted) / (2 * new))) is not None:
                raise AssertionError(advice)
            if found == counted - attended + attended // model.num_layers:
                raise AssertionError("Attention is counted for one layer; there are num_layers.")
            if found * 2 == counted:
                raise AssertionError(
                    "That is half: each weight takes a multiplication and an addition."
                )
            if found != counted:
                raise AssertionError(
                    f"{new} new tokens on {stored} cached ones: PyTorch counted {counted:,} "
                    f"operations, operations(model, {new}, {new + stored}) gives {found:,}."
                )
    return "operations is right: it agrees with what PyTorch counts, cached and uncached."


@verdict
def check_exponent(exponent: Callable[..., float]) -> str:
    """Notebook 05, exercise 4. Returns a verdict; raises AssertionError on a wrong slope."""
    tokens = np.array([10.0, 50.0, 100.0, 500.0, 1000.0])
    for power, factor in ((2.0, 0.01), (1.0, 3.0), (1.5, 1e-4), (0.0, 2.0)):
        seconds = factor * tokens**power
        found = exponent(tokens, seconds)
        if np.ndim(found) or not isinstance(found, float | np.floating):
            raise AssertionError(f"exponent gave {found!r}, expected one number: the slope.")
        if np.isclose(found, np.polyfit(tokens, seconds, 1)[0]) and power not in (0.0, 1.0):
            raise AssertionError("That is the slope in seconds per token. Take both logarithms.")
        if np.isclose(found, np.polyfit(tokens, np.log(seconds), 1)[0]) and power != 0.0:
            raise AssertionError("Take the logarithm of the tokens too, not only of the times.")
        if np.isclose(found, np.polyfit(np.log(tokens), seconds, 1)[0]) and power != 0.0:
            raise AssertionError("Take the logarithm of the times too, not only of the tokens.")
        if power and np.isclose(found, 1 / power) and power != 1.0:
            raise AssertionError(
                "Tokens and seconds are exchanged: log seconds against log tokens."
            )
        if not np.isclose(found, power, atol=1e-6):
            raise AssertionError(
                f"For seconds = {factor:g} * tokens ** {power:g} the exponent is {power:g}; found "
                f"{found:.3f}."
            )
    bent = 0.01 * tokens**1.5 * np.array([1.0, 1.2, 0.9, 1.1, 1.05])
    found, best = exponent(tokens, bent), np.polyfit(np.log(tokens), np.log(bent), 1)[0]
    if not np.isclose(found, best, atol=1e-6):
        raise AssertionError(
            f"Five points that do not lie on a line have the slope {best:.4f}, found {found:.4f}. "
            "Fit a line through all of them (least squares), and do not round."
        )
    return "exponent is right on four power laws, and on points beside a line."


EXERCISES: dict[str, dict[str, tuple[Callable[..., str], tuple[str, ...]]]] = {
    "01": {
        "1: the softmax that does not overflow": (check_softmax, ("softmax",)),
        "2: the causal mask": (check_causal_mask, ("causal_mask",)),
        "3: attention": (check_attention, ("attention_weights", "attention")),
        "4: many heads": (check_multi_head, ("MultiHeadAttention",)),
    },
    "02": {
        "1: layer norm": (check_layer_norm, ("layer_norm",)),
        "2: feed-forward": (check_feed_forward, ("FeedForward",)),
        "3: the decoder layer": (check_decoder_layer, ("DecoderLayer",)),
        "4: the decoder-only transformer": (check_model, ("DecoderOnlyTransformer",)),
    },
    "03": {
        "1: top-k": (check_keep_top_k, ("keep_top_k",)),
        "2: top-p": (check_keep_top_p, ("keep_top_p",)),
        "3: the next token": (check_next_token, ("next_token",)),
        "4: generate": (check_generate, ("generate",)),
        "5: beam search (optional)": (check_beam_search, ("beam_search",)),
    },
    "04": {
        "1: a growing cache": (check_cache, ("GrowingCache",)),
        "2: attention with a cache": (
            check_cached_attention,
            ("MultiHeadAttention", "GrowingCache"),
        ),
        "3: the model with a cache": (check_cached_model, ("DecoderOnlyTransformer",)),
        "4: feed only what is new": (check_decode_loop, ("decode_loop",)),
        "5: a preallocated cache": (check_preallocated, ("PreallocatedCache",)),
        "6: cure patient 1": (check_cured, ("Cured1",)),
        "7: cure patient 2": (check_cured, ("Cured2",)),
        "8: cure patient 3": (check_cured, ("Cured3",)),
        "9: cure patient 4": (check_cured, ("Cured4",)),
        "10: reorder the rows (optional)": (check_reorder, ("GrowingCache",)),
    },
    "05": {
        "1: a time for each token": (check_token_times, ("token_times",)),
        "2: a fair measurement": (check_measure, ("measure",)),
        "3: count": (check_operations, ("operations",)),
        "4: the exponent": (check_exponent, ("exponent",)),
    },
}


def progress(
    notebook: str,
    defined: dict[str, object],
    exercises: dict[str, dict[str, tuple[Callable[..., str], tuple[str, ...]]]] | None = None,
) -> pd.DataFrame:
    """Which exercises of `notebook` ("01" to "05") pass, and what remains: one row for each.

    `defined` holds the answers by name: `globals()` in the notebook. Nothing is raised. `exercises`
    are those of the chapters, for a notebook from "06" on.
    """
    exercises = EXERCISES if exercises is None else exercises
    states = {
        title: _state(check, [defined.get(name) for name in names])
        for title, (check, names) in exercises[notebook].items()
    }
    remaining = [title for title, state in states.items() if state != PASSES]
    print(f"{len(states) - len(remaining)} of {len(states)} pass.", *remaining[:1], sep=" Next is ")
    return pd.DataFrame({"exercise": states.keys(), "state": states.values()}).set_index("exercise")


def _state(check: Callable[..., str], answers: list[object]) -> str:
    if any(answer is None for answer in answers):
        return "to do"
    try:
        check(*answers)
    except NotImplementedError:
        return "to do"
    except Exception as error:
        why = (
            str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        )
        return "not yet: " + textwrap.shorten(why, 160, placeholder=" ...")
    if all(getattr(answer, "__module__", "").startswith("course_utils") for answer in answers):
        return "the course's version; yours is to come"
    return PASSES


def _tiny_model(vocab_size: int = 20, max_seq_len: int = 16) -> DecoderOnlyTransformer:
    torch.manual_seed(0)
    shape = (vocab_size, 12, 24, 2, max_seq_len)
    model = DecoderOnlyTransformer(*shape, num_heads=3, dropout=0.0).eval()
    with torch.no_grad():
        model.output_projection.weight.mul_(4)
    return model


def _load(module: nn.Module, reference: nn.Module) -> None:
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
