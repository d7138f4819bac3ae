"""Answers to the exercises on FlashAttention, wrong and right ones (chapter 08)."""

import math

import pytest
import torch
from edited import edited

from course_utils.going_further.flash import checks
from course_utils.going_further.flash import flash_attention as room

pytestmark = pytest.mark.authors

AMAX = "scores.amax(dim=-1, keepdim=True)"
MAXIMUM = f"torch.maximum(row_max, {AMAX})"
SHIFT = "new_max.masked_fill(new_max == -math.inf, 0.0)"
QUERY = "q[..., rows, :] / math.sqrt(q.size(-1))"
UP_TO = "past + rows.stop if causal else k.size(-2)"
MASK = "scores.masked_fill(~mask[..., rows, columns], -math.inf)"
LATER = "later(rows, columns, past, q.device)"
WRITTEN = "output[..., rows, :], lse[..., rows] = finish(state)"
SHARES = "softmax(lses.movedim(0, -1)).movedim(-1, 0)"
MERGED = "(shares.unsqueeze(-1) * outputs).sum(dim=0)"
MEAN = "(grad_rows * output[..., rows, :]).sum(dim=-1, keepdim=True)"

WRONG = {
    "absorb": [
        (("decay * total", "total"), "The old sum is not scaled down"),
        (("decay * output", "output"), "The old weighted sum is not scaled down"),
        (("row_max - shift", "shift - row_max"), "exp\\(old largest - new largest\\)"),
        ((MAXIMUM, AMAX), "the largest of the new scores only"),
        ((MAXIMUM, "row_max"), "not brought up to date|-inf, expected"),
        ((MAXIMUM, f"torch.maximum(row_max, {AMAX}.amax())"), "Each row has a largest score"),
        ((SHIFT, "new_max"), "-inf - \\(-inf\\) is not a number"),
        ((SHIFT, "torch.zeros_like(row_max)"), "No largest score is subtracted"),
        ((SHIFT, "new_max.clamp(min=-1e3)"), "absorb\\("),
        (("return new_max", "return shift"), "the state keeps the -inf"),
        (("weights @ v", "weights @ v / total"), "a, the weighted sum"),
        (("weights @ v", "torch.softmax(scores, dim=-1) @ v"), "divided by their sum"),
        (("weights.sum(", "weights.mean("), "the mean of the new weights"),
        (("weights.sum(dim=-1, keepdim=True)", "weights.sum(dim=-1)"), "shape|raised"),
        (("decay * output + weights @ v", "weights @ v"), "a, the weighted sum"),
        (("total = decay * total", "total = total.mul_(decay)"), "changes a tensor that came in"),
        (("decay * output + ", "output.mul_(decay) + "), "changes a tensor that came in"),
        (("weights = torch.exp(scores - shift)", "weights = scores.sub_(shift).exp()"), "changes"),
        (("scores - shift)", "scores - shift).detach()"), "gradient"),
        (("torch.exp(scores - shift)", "torch.exp(scores - shift).float()"), "dtype|raised"),
        (("return new_max, total, decay", "return total, new_max, decay"), "m, the largest"),
        (
            (SHIFT, "torch.where(new_max.isinf(), torch.zeros(new_max.shape), new_max)"),
            "dtype|another device",
        ),
    ],
    "flash_attention": [
        ((QUERY, "q[..., rows, :]"), "not divided by the square root"),
        ((QUERY, "q[..., rows, :] / q.size(-1)"), "divided by d"),
        ((QUERY, "q[..., rows, :] * math.sqrt(q.size(-1))"), "multiplied by the square root"),
        ((QUERY, "q[..., rows, :] / math.sqrt(max(k.size(-2), 1))"), "number of keys"),
        ((QUERY, "q[..., rows, :] / math.sqrt(2)"), "flash_attention\\("),
        (("k.size(-2) - q.size(-2)", "0"), "from the corner"),
        ((UP_TO, "k.size(-2)"), "scores are computed"),
        ((UP_TO, "rows.stop if causal else k.size(-2)"), "flash_attention\\("),
        ((UP_TO, "past + rows.start if causal else k.size(-2)"), "flash_attention\\("),
        ((UP_TO, "past + rows.stop + 1 if causal else k.size(-2)"), "one too far"),
        ((MASK, "scores.masked_fill(mask[..., rows, columns], -math.inf)"), "wrong way round"),
        ((MASK, "scores.masked_fill(~mask[rows, columns], -math.inf)"), "raised|expected"),
        ((MASK, "scores.masked_fill(~mask[..., rows, columns], 0.0)"), "score of 0 is not hidden"),
        (
            (MASK, "scores.masked_fill(~mask[..., rows, columns], -1e9)"),
            "score of -1e.09 is not hidden",
        ),
        ((MASK, "scores.masked_fill(~mask[..., rows, columns], -1e4)"), "score of -10000 is not"),
        ((MASK, "scores"), "`mask` has no effect"),
        (
            ("if mask is not None", "if mask is not None and not causal"),
            "the mask has no effect: each hides",
        ),
        (("if causal:", "if causal and mask is None:"), "the latter has no effect"),
        (("if causal:", "if False:"), "`causal` has no effect"),
        (("if mask is not None:", "if mask:"), "several numbers is neither true nor false"),
        ((LATER, "later(rows, columns, past)"), "another device"),
        ((LATER, "later(rows, columns, past - 1, q.device)"), "one key too many"),
        ((LATER, "later(rows, columns, past + 1, q.device)"), "one too few"),
        ((LATER, "later(columns, rows, past, q.device)"), "raised|expected"),
        ((WRITTEN, "output[..., rows, :], _ = finish(state)"), "never written"),
        ((WRITTEN, "output[..., rows, :], lse[..., rows] = state[2], state[0][..., 0]"), "is"),
        ((f"{' ' * 4}{WRITTEN}", f"{' ' * 8}{WRITTEN}"), "never written|is 0|NaN"),
        (("tile[0]", "tile[1]"), "bytes"),
        (("tile[1]", "tile[0]"), "bytes"),
        (("torch.empty_like(q), q.new_empty", "torch.empty(q.shape), torch.empty"), "dtype|raised"),
        (("finish(state)", "(part.detach() for part in finish(state))"), "gradient"),
        ((QUERY, "q[..., rows, :].div_(math.sqrt(q.size(-1)))"), "changes a tensor"),
        (("tiles(q.size(-2), tile[0])", "range(q.size(-2))"), "raised"),
        (("return output, lse", "return output"), "1 of 2 results"),
        (("return output, lse", "return output, lse.exp()"), "logarithm"),
        (("return output, lse", "return output, lse.unsqueeze(-1)"), "shape"),
    ],
    "merge": [
        ((SHARES, "softmax(lses)"), "over the parts"),
        ((SHARES, "torch.softmax(lses, dim=0)"), "0 by 0"),
        ((SHARES, "lses / lses.sum(dim=0)"), "merge\\("),
        ((SHARES, "lses.exp() / lses.exp().sum(dim=0)"), "overflow|0 by 0"),
        ((SHARES, "lses.exp()"), "merge\\("),
        ((SHARES, "torch.sigmoid(lses)"), "merge\\("),
        ((SHARES, "torch.full_like(lses, 1 / len(lses))"), "mean"),
        ((SHARES, "torch.ones_like(lses)"), "sum"),
        ((SHARES, "softmax((lses - lses.amax()).movedim(0, -1)).movedim(-1, 0)"), "NaN|merge"),
        ((SHARES, "torch.softmax(lses.clamp(min=-1e4), dim=0)"), "merge\\("),
        ((".sum(dim=0)", ".mean(dim=0)"), "merge\\("),
        (("shares.unsqueeze(-1)", "shares"), "raised|shape|is"),
        (("lses.logsumexp(dim=0)", "lses.logsumexp(dim=-1)"), "log-sum-exp"),
        (("lses.logsumexp(dim=0)", "lses.exp().sum(dim=0).log()"), "overflows|is inf"),
        (("lses.logsumexp(dim=0)", "lses.amax(dim=0)"), "largest"),
        (("lses.logsumexp(dim=0)", "lses.sum(dim=0)"), "add up"),
        (("lses.logsumexp(dim=0)", "lses.mean(dim=0)"), "mean"),
        (("lses.logsumexp(dim=0)", "lses.logsumexp(dim=0).nan_to_num(neginf=0.0)"), "-inf"),
        (("lses.logsumexp(dim=0)", "lses.logsumexp(dim=0).float()"), "dtype"),
        (("lses.logsumexp(dim=0)", "lses.logsumexp(dim=0, keepdim=True)"), "shape"),
        (("lses.movedim(0, -1)", "lses.sub_(lses.amax(0)).movedim(0, -1)"), "changes|NaN"),
        ((MERGED, f"{MERGED}.detach()"), "gradient"),
        ((MERGED, f"{MERGED}.float()"), "dtype"),
    ],
    "flash_backward": [
        ((" @ keys * scale", " @ keys"), "grad_q is too large"),
        ((" @ keys * scale", " @ keys * scale * scale"), "grad_q is too small"),
        (("@ query\n", "@ query * scale\n"), "grad_k is too small"),
        (("@ query\n", "@ q[..., rows, :]\n"), "grad_k is too large"),
        (("q[..., rows, :] * scale", "q[..., rows, :]"), "divided by sqrt"),
        ((" - mean", ""), "not subtracted"),
        ((" - mean", " + mean"), "added"),
        ((MEAN, "grad_rows.sum(dim=-1, keepdim=True)"), "times \\*output\\*"),
        ((MEAN, MEAN.replace(".sum(", ".mean(")), "flash_backward\\("),
        ((MEAN, MEAN.replace("dim=-1", "dim=-2")), "raised|grad"),
        (("weights * (grad_rows", "(grad_rows"), "weights are missing"),
        (("+= weights.transpose(-2, -1) @ grad_rows", "+= grad_scores.mT @ grad_rows"), "of v is"),
        (("            if causal:\n", "            if False:\n"), "`causal` has no effect"),
        (("k.size(-2) - q.size(-2), 1", "0, 1"), "from the corner"),
        (("grad_q[..., rows, :] +=", "grad_q[..., rows, :] ="), "\\*adds\\*"),
        (("grad_k[..., columns, :] +=", "grad_k[..., columns, :] ="), "\\*adds\\*"),
        (("grad_v[..., columns, :] +=", "grad_v[..., columns, :] ="), "\\*adds\\*"),
        (("return grad_q, grad_k, grad_v", "return grad_k, grad_q, grad_v"), "exchanged"),
        (("return grad_q, grad_k, grad_v", "return grad_q, grad_k"), "2 of 3 results"),
        ((LATER, "later(rows, columns, past)"), "another device"),
        (("tile[0]", "tile[1]"), "bytes at a time"),
        (("tile[1])", "k.size(-2))"), "bytes at a time"),
        (("torch.zeros_like(q)", "torch.zeros(q.shape)"), "dtype|another device"),
        (
            (
                "query, grad_rows = q[..., rows, :] * scale",
                "query, grad_rows = q[..., rows, :].mul_(scale)",
            ),
            "changes a tensor",
        ),
        (("torch.exp(query", "torch.softmax(query"), "raised"),
        (
            (f"weights.masked_fill({LATER}, 0.0)", "weights.tril()"),
            "flash_backward\\(",
        ),
        (
            (
                "torch.exp(query @ keys.transpose(-2, -1) - lse[..., rows].unsqueeze(-1))",
                "torch.softmax(query @ keys.transpose(-2, -1), dim=-1)",
            ),
            "flash_backward\\(",
        ),
    ],
}


def careful(state, scores, v):
    """By one softmax over old and new together."""
    old, total, output = state
    new_max = torch.cat([old, scores], dim=-1).max(dim=-1, keepdim=True).values
    weights = torch.nan_to_num(torch.exp(scores - new_max))
    decay = torch.nan_to_num(torch.exp(old - new_max))
    return new_max, total * decay + weights.sum(-1, True), output * decay + weights @ v


def one_by_one(state, scores, v):
    row_max, total, output = state
    for i in range(scores.size(-1)):
        score, value = scores[..., i : i + 1], v[..., i : i + 1, :]
        new_max = torch.maximum(row_max, score)
        seen = new_max > -math.inf
        decay = torch.where(seen, torch.exp(row_max - new_max), 1.0)
        weight = torch.where(seen, torch.exp(score - new_max), 0.0)
        row_max, total, output = new_max, decay * total + weight, decay * output + weight * value
    return row_max, total, output


def by_log_sum_exp(state, scores, v):
    row_max, total, output = state
    new_max = torch.maximum(row_max, scores.max(dim=-1, keepdim=True)[0])
    lse = torch.logsumexp(torch.cat([row_max + total.log(), scores], dim=-1), -1, keepdim=True)
    shift = torch.where(new_max == -math.inf, torch.zeros_like(new_max), new_max)
    weights = torch.exp(scores - shift)
    return [
        new_max,
        torch.exp(lse - shift),
        torch.einsum("...qk,...kd->...qd", weights, v) + output * torch.exp(row_max - shift),
    ]


def collected(q, k, v, mask=None, causal=False, tile=(64, 64)):
    """Loops without the course's tiles and masks; parts collected in lists."""
    outputs, lses, past = [], [], k.size(-2) - q.size(-2)
    for start in range(0, q.size(-2), tile[0]):
        query = q[..., start : start + tile[0], :]
        end = past + start + query.size(-2) if causal else k.size(-2)
        state = room.nothing_yet(query)
        for first in range(0, end, tile[1]):
            keys = k[..., first : min(first + tile[1], end), :]
            values = v[..., first : first + keys.size(-2), :]
            scores = torch.einsum("...qd,...kd->...qk", query, keys) / math.sqrt(q.size(-1))
            keep = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device)
            if mask is not None:
                keep = mask[..., start : start + tile[0], first : first + keys.size(-2)]
            keep = keep.tril(past + start - first) if causal else keep
            state = room.absorb(state, torch.where(keep, scores, -math.inf), values)
        output, lse = room.finish(state)
        outputs.append(output)
        lses.append(lse)
    return torch.cat(outputs, dim=-2), torch.cat(lses, dim=-1)


BREAK = """            if causal and columns.start >= past + rows.stop:
                break
            scores = query"""


def merged_tiles(q, k, v, mask=None, causal=False, tile=(64, 64)):
    """The tiles of keys apart, and merged at the end."""
    output, lse = torch.empty_like(q), q.new_empty(q.shape[:-1])
    past = k.size(-2) - q.size(-2)
    for rows in room.tiles(q.size(-2), tile[0]):
        query = q[..., rows, :] / math.sqrt(q.size(-1))
        now = torch.zeros_like(query), query.new_full(query.shape[:-1], -math.inf)
        for columns in room.tiles(past + rows.stop if causal else k.size(-2), tile[1]):
            scores = query @ k[..., columns, :].mT
            hidden = torch.zeros(scores.shape[-2:], dtype=torch.bool, device=q.device)
            hidden = hidden if mask is None else ~mask[..., rows, columns]
            if causal:
                hidden = hidden | room.later(rows, columns, past, q.device)
            scores = scores.masked_fill(hidden, -math.inf)
            part = room.softmax(scores) @ v[..., columns, :], scores.logsumexp(-1)
            now = room.merge(*(torch.stack(both) for both in zip(now, part, strict=True)))
        output[..., rows, :], lse[..., rows] = now
    return output, lse


def by_powers(outputs, lses):
    lse = torch.logsumexp(lses, 0)
    shares = torch.exp(lses - lse.masked_fill(lse == -math.inf, 0.0))
    return torch.einsum("s...,s...d->...d", shares, outputs), lse


def pairwise(outputs, lses):
    output, lse = outputs[0], lses[0]
    for one, number in zip(outputs[1:], lses[1:], strict=True):
        both = torch.logaddexp(lse, number)
        shift = torch.where(both.isinf(), torch.zeros_like(both), both)
        old, new = torch.exp(lse - shift), torch.exp(number - shift)
        output, lse = old[..., None] * output + new[..., None] * one, both
    return output, lse


def as_attention(outputs, lses):
    """Log-sum-exps as scores, outputs as values."""
    weights = torch.softmax(lses.movedim(0, -1), dim=-1).nan_to_num(0.0)
    merged = weights.unsqueeze(-2) @ outputs.movedim(0, -2)
    return merged.squeeze(-2), torch.logsumexp(lses, dim=0)


def keys_outside(q, k, v, output, lse, grad, causal=False, tile=(64, 64)):
    past, root = k.size(-2) - q.size(-2), math.sqrt(q.size(-1))
    gradients = [torch.zeros_like(x) for x in (q, k, v)]
    mean = torch.einsum("...qd,...qd->...q", grad, output)
    for columns in room.tiles(k.size(-2), tile[1]):
        keys, values = k[..., columns, :], v[..., columns, :]
        for rows in room.tiles(q.size(-2), tile[0]):
            scores = torch.einsum("...qd,...kd->...qk", q[..., rows, :], keys) / root
            weights = (scores - lse[..., rows, None]).exp()
            if causal:
                weights[..., room.later(rows, columns, past, q.device)] = 0.0
            slope = weights * (grad[..., rows, :] @ values.mT - mean[..., rows, None]) / root
            gradients[0][..., rows, :].add_(slope @ keys)
            gradients[1][..., columns, :] += slope.mT @ q[..., rows, :]
            gradients[2][..., columns, :] += weights.mT @ grad[..., rows, :]
    return gradients


RIGHT = {
    "absorb": [
        careful,
        one_by_one,
        by_log_sum_exp,
        edited(
            room, "absorb", ("masked_fill(new_max == -math.inf, 0.0)", "nan_to_num(neginf=-9.0)")
        ),
        edited(room, "absorb", (MAXIMUM, f"torch.maximum(row_max, {AMAX}).detach()")),
    ],
    "flash_attention": [
        collected,
        merged_tiles,
        edited(
            room, "flash_attention", (UP_TO, "k.size(-2)"), ("            scores = query", BREAK)
        ),
        edited(
            room, "flash_attention", ("empty_like(q)", "zeros_like(q)"), (MASK, f"{MASK[:-1]})")
        ),
    ],
    "merge": [
        by_powers,
        pairwise,
        as_attention,
        edited(room, "merge", (SHARES, "torch.softmax(lses, dim=0).nan_to_num(1.0)")),
    ],
    "flash_backward": [
        keys_outside,
        edited(room, "flash_backward", (UP_TO, "k.size(-2)")),
        edited(
            room,
            "flash_backward",
            (
                "mean = (grad_rows * output[..., rows, :])",
                "mean = torch.mul(output, grad)[..., rows, :]",
            ),
        ),
        edited(room, "flash_backward", ("lse[..., rows].unsqueeze(-1)", "lse[..., rows, None]")),
    ],
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "change", "why"),
    [(name, change, why) for name, changes in WRONG.items() for change, why in changes],
)
def test_a_wrong_answer_is_told_why(name, change, why):
    with pytest.raises(AssertionError, match=why):
        getattr(checks, f"check_{name}")(edited(room, name, change))


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_in_other_words(name):
    for answer in RIGHT[name]:
        assert "right" in getattr(checks, f"check_{name}")(answer)
