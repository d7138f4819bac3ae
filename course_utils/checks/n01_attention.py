"""What the check cells of attention call (notebook 01)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .. import attention as right
from .common import (
    ask,
    close,
    has_shape,
    load_weights,
    refuse_known,
    same,
    unchanged,
    verdict,
)


@verdict
def check_softmax(softmax: Callable[[Tensor], Tensor]) -> str:
    """Notebook 01, exercise 1. Returns a verdict; raises AssertionError if it is not a softmax."""
    rows = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, -1.0]])
    before = rows.clone()
    found = softmax(rows)
    unchanged([before], [rows])
    mistakes = [
        (
            torch.softmax(rows, dim=0),
            "Columns sum to 1, rows should. Use dim=-1, the last dimension.",
        ),
        (
            torch.softmax(rows.flatten(), 0).view_as(rows),
            "All weights together sum to 1, each row should. Sum over dim=-1 with keepdim=True.",
        ),
    ]
    refuse_known(found, mistakes)
    close(found, torch.softmax(rows, -1), "softmax of small scores")
    for scale in (1e4, -1e4):
        close(
            softmax(rows * scale),
            torch.softmax(rows * scale, -1),
            f"softmax of scores around {scale:g} (subtract each row's own maximum first)",
        )
    two_levels = torch.tensor([[1000.0, 999.0], [-1000.0, -999.0]])
    close(
        softmax(two_levels),
        torch.softmax(two_levels, -1),
        "softmax of two rows on different levels (each row has its own maximum)",
    )
    batch = torch.linspace(-3, 3, 24).view(2, 3, 4)
    close(softmax(batch), torch.softmax(batch, -1), "softmax of a (2, 3, 4) tensor")
    masked = torch.tensor([[-math.inf, -math.inf], [-math.inf, 0.0]])
    expected = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    close(softmax(masked), expected, "softmax with a fully masked row (its weights are 0)")
    half = torch.linspace(-8, 8, 200, dtype=torch.bfloat16)
    close(
        softmax(half),
        torch.softmax(half, -1),
        "softmax in bfloat16 (compute in float32, convert at the end)",
    )
    fine = torch.linspace(-3, 3, 24, dtype=torch.float64)
    found = softmax(fine)
    close(found, torch.softmax(fine, -1), "softmax in float64")
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
                f"In {name}, query {query} is at position {position} and {verb} key {key}. It "
                f"should see keys 0 to {position}, its own included."
            )
    device = causal_mask(2, 5, torch.device("meta")).device.type
    if device != "meta":
        raise AssertionError(
            f"causal_mask(2, 5, device) made its mask on {device}, not on the device it was given. "
            "Hand `device` on to the functions that make tensors."
        )
    return "causal_mask is right: square, single, with more keys than queries, on any device."


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
            unchanged(before, (q, k, v))
            expected = right.attention_weights(q, k, given)
            _explain_weights(found, expected, q, k, given)
            close(found, expected, f"attention weights for queries of shape {shape}")
            output = ask(attention, q, k, v, given)
            unchanged(before, (q, k, v))
            close(output, expected @ v, f"attention for queries of shape {shape}")
    return "attention is right: with and without a mask, one sequence and batches of heads."


def _explain_weights(
    found: object, expected: Tensor, q: Tensor, k: Tensor, mask: Tensor | None
) -> None:
    """Raise AssertionError for the usual mistakes in attention weights, in their own words."""
    if not has_shape(found, expected.shape):
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
    hidden = ~mask if mask is not None else torch.zeros_like(unscaled, dtype=torch.bool)
    wrong_scores = (
        (unscaled, "The scores are not divided: they need a factor of 1 / sqrt(d)."),
        (unscaled / q.size(-1), "The scores are divided by d; divide by its square root."),
        (unscaled * root, "The scores are multiplied by sqrt(d); divide by it."),
        (
            unscaled.transpose(-2, -1) / root,
            "Queries and keys are exchanged: row i of the scores belongs to query i.",
        ),
    )
    mistakes = [
        (torch.softmax(scores.masked_fill(hidden, -math.inf), -1), advice)
        for scores, advice in wrong_scores
    ]
    if mask is None:
        mistakes.append(
            (
                torch.softmax(unscaled / root, -2),
                "Columns sum to 1, rows should: each query has 1 to give. Use dim=-1.",
            )
        )
    refuse_known(found, mistakes)


@verdict
def check_multi_head(multi_head_class: type[nn.Module]) -> str:
    """Notebook 01, exercise 4. Returns a verdict; raises AssertionError on a wrong module."""
    for batch, seq_len, d_model, num_heads in ((1, 6, 4, 1), (2, 5, 12, 3), (3, 1, 8, 8)):
        torch.manual_seed(0)
        reference = right.MultiHeadAttention(d_model, num_heads)
        layer = multi_head_class(d_model, num_heads)
        load_weights(layer, reference)
        x = torch.randn(batch, seq_len, d_model)
        heads = layer.split_heads(x)
        shape = (batch, num_heads, seq_len, d_model // num_heads)
        expected = reference.split_heads(x)
        if has_shape(heads, shape) and (heads != expected).any():
            raise AssertionError(
                "split_heads has the right shape, but the numbers are shuffled among positions "
                "and heads. First view as (batch, seq_len, heads, d_head), then transpose."
            )
        close(heads, expected, f"split_heads of {tuple(x.shape)}")
        merged = layer.merge_heads(heads)
        if num_heads > 1 and seq_len > 1 and same(merged, heads.reshape(x.shape)):
            raise AssertionError("merge_heads shuffles the numbers: transpose(1, 2) comes first.")
        close(merged, x, "merge_heads of split_heads (x should come back)")
        projections = reference.W_q, reference.W_k, reference.W_v
        found, q, k, v = layer(x), *(reference.split_heads(W(x)) for W in projections)
        mask = right.causal_mask(seq_len, seq_len)
        mixed = reference.merge_heads(right.attention(q, k, v, mask))
        unmasked = reference.W_o(reference.merge_heads(right.attention(q, k, v)))
        mistakes = [(mixed, "W_o is missing: it goes last, on the merged heads.")]
        if seq_len > 1:
            mistakes.append((unmasked, "Nothing is masked: give attention a causal mask."))
        refuse_known(found, mistakes)
        close(found, reference(x), f"the output for {num_heads} heads")
    return "MultiHeadAttention is right: one head, three, and as many as dimensions."
