"""Right answers written another way pass: einsum, loops, PyTorch's own functions, other layouts."""

import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import checks
from course_utils.attention import MultiHeadAttention, attention_weights
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import DecoderLayer, DecoderOnlyTransformer

pytestmark = pytest.mark.authors


def test_attention():
    checks.check_softmax(lambda x: torch.softmax(x, -1).nan_to_num(0.0))
    checks.check_causal_mask(lambda q, k, on=None: torch.ones(q, k, device=on).tril(k - q) == 1)
    checks.check_causal_mask(
        lambda q, k, on=None: ~torch.ones(q, k, device=on).bool().triu(k - q + 1)
    )


def weights_by_einsum(q, k, mask=None):
    scores = torch.einsum("...qd,...kd->...qk", q, k) / q.size(-1) ** 0.5
    if mask is not None:
        scores = torch.where(mask, scores, torch.tensor(-math.inf))
    exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def test_attention_by_einsum_and_by_pytorch():
    fused = lambda q, k, v, mask=None: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # noqa: E731
    checks.check_attention(weights_by_einsum, fused)
    checks.check_attention(
        attention_weights, lambda q, k, v, m=None: weights_by_einsum(q, k, m) @ v
    )


class HeadsByLoop(MultiHeadAttention):
    def split_heads(self, x):
        return torch.stack(x.chunk(self.num_heads, dim=-1), dim=1)

    def merge_heads(self, x):
        return torch.cat([x[:, head] for head in range(x.size(1))], dim=-1)


def test_heads_by_loop():
    checks.check_multi_head(HeadsByLoop)
    checks.check_cached_attention(HeadsByLoop, GrowingCache)


def norm_by_moments(x, weight, bias, eps=1e-5):
    average = x.mean(-1, keepdim=True)
    variance = (x - average).pow(2).mean(-1, keepdim=True)
    return (x - average) * torch.rsqrt(variance + eps) * weight + bias


class Clamped(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

    def forward(self, x):
        return self.fc2(self.fc1(x).clamp(min=0))


class WithNames(DecoderLayer):
    def forward(self, x, cache=None, layer=0):
        found = self.attention(self.norm1(x), cache, layer)
        attended = torch.add(x, self.dropout(found))
        return attended + self.dropout(self.feed_forward(self.norm2(attended)))


class InOneLine(DecoderOnlyTransformer):
    def forward(self, input_ids):
        where = self.pos_embedding.weight[: input_ids.size(1)]
        x = self.dropout(self.token_embedding(input_ids) + where)
        return self.output_projection(self.norm(nn.Sequential(*self.layers)(x))), None


def test_block():
    checks.check_layer_norm(norm_by_moments)
    checks.check_feed_forward(Clamped)
    checks.check_decoder_layer(WithNames)
    checks.check_model(InOneLine)


def top_k_by_sorting(logits, k):
    kept = logits.clone()
    for row in kept:
        threshold = row.sort(descending=True).values[min(k, len(row)) - 1].item()
        row[row < threshold] = -math.inf
    return kept


def top_p_by_loop(logits, p):
    kept = torch.full_like(logits, -math.inf)
    for row, logit in enumerate(logits):
        total = 0.0
        for token in logit.argsort(descending=True).tolist():
            if total >= p:
                break
            kept[row, token] = logit[token]
            total += torch.softmax(logit, -1)[token].item()
    return kept


def by_inverse(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    """Draw by comparing one uniform number per row with the running sum."""
    if temperature == 0:
        return logits.max(dim=-1).indices
    logits = logits / temperature
    logits = top_k_by_sorting(logits, top_k) if top_k else logits
    logits = top_p_by_loop(logits, top_p) if top_p else logits
    running = torch.softmax(logits.double(), -1).cumsum(-1)
    drawn = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64)
    return (running < drawn * running[:, -1:]).sum(-1)


def into_a_buffer(model, input_ids, max_new_tokens, temperature=1.0, **options):
    batch, length = input_ids.shape
    ids = torch.cat([input_ids, input_ids.new_zeros(batch, max_new_tokens)], dim=1)
    for at in range(length, length + max_new_tokens):
        ids[:, at] = by_inverse(model(ids[:, :at])[0][:, -1], temperature, **options)
    return ids


def beams_in_lists(model, prompt, new, num_beams):
    beams = [(0.0, prompt[0].tolist())]
    for _ in range(new):
        longer = []
        for score, text in beams:
            logs = torch.log_softmax(model(torch.tensor([text]))[0][0, -1], -1).tolist()
            longer += [(score + log, [*text, token]) for token, log in enumerate(logs)]
        beams = sorted(longer, key=lambda beam: -beam[0])[:num_beams]
    return torch.tensor([text for _, text in beams]), torch.tensor([score for score, _ in beams])


def test_generation():
    checks.check_keep_top_k(top_k_by_sorting)
    checks.check_keep_top_p(top_p_by_loop)
    checks.check_next_token(by_inverse)
    checks.check_generate(torch.no_grad()(into_a_buffer))
    checks.check_beam_search(torch.no_grad()(beams_in_lists))


class ListOfChunks:
    def __init__(self, model, batch_size):
        self.batch_size = batch_size
        self.chunks = [([], []) for _ in range(model.num_layers)]

    @property
    def length(self):
        return sum(k.size(2) for k in self.chunks[0][0])

    def append(self, layer, k, v):
        for chunks, new in zip(self.chunks[layer], (k, v), strict=True):
            chunks.append(new)
        return tuple(torch.cat(chunks, dim=2) for chunks in self.chunks[layer])

    def reorder(self, rows):
        self.batch_size = len(rows)
        self.chunks = [tuple([c[rows] for c in kind] for kind in both) for both in self.chunks]


class Narrowed(PreallocatedCache):
    def append(self, layer, k, v):
        start, new = self.lengths[layer], k.size(2)
        self.lengths[layer] += new
        found = []
        for room, part in ((self.keys[layer], k), (self.values[layer], v)):
            room.narrow(2, start, new).copy_(part)
            found.append(room.narrow(2, 0, start + new))
        return tuple(found)


class FromTheEnd(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return ListOfChunks(self, batch_size)

    def embed(self, input_ids, start=0):
        where = self.pos_embedding.weight[start : start + input_ids.size(1)]
        return self.dropout(self.token_embedding(input_ids) + where)


def test_cache():
    checks.check_cache(ListOfChunks)
    checks.check_preallocated(Narrowed)
    checks.check_cached_model(FromTheEnd)
    checks.check_reorder(ListOfChunks)


def test_timing():
    def with_while(start, clock=time.perf_counter):
        begin, times, tokens = clock(), [], iter(start())
        while next(tokens, None) is not None:
            times.append(clock() - begin)
        return times

    def least_squares(tokens, seconds):
        x = np.stack([np.log(tokens), np.ones(len(tokens))], axis=1)
        return np.linalg.lstsq(x, np.log(seconds), rcond=None)[0][0]

    checks.check_token_times(with_while)
    checks.check_exponent(least_squares)
