"""Softmax, masks and attention against plain arithmetic."""

import math

import pytest
import torch
from helpers import random_ids
from torch import nn

from course_utils.attention import (
    MultiHeadAttention,
    SingleHeadAttention,
    attention,
    attention_weights,
    causal_mask,
    softmax,
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_softmax_of_large_logits(dtype):
    scores = torch.tensor([[6e4, 6e4, -6e4], [-6e4, -6e4, -6e4]], dtype=dtype)
    expected = torch.tensor([[0.5, 0.5, 0.0], [1 / 3] * 3]).to(dtype)
    weights = softmax(scores)
    assert weights.dtype == dtype
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_wholly_masked_row_has_no_weights(dtype):
    scores = torch.tensor([[-math.inf] * 3, [-math.inf, 0.0, 0.0]], dtype=dtype)
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5]], dtype=dtype)
    torch.testing.assert_close(softmax(scores), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_softmax_in_16_bits_rounds_once(dtype):
    scores = torch.linspace(-8, 8, 2000).to(dtype)
    exact = torch.softmax(scores.double(), dim=-1).to(dtype)
    torch.testing.assert_close(softmax(scores), exact, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_softmax_is_pytorchs(dtype):
    torch.manual_seed(0)
    scores = (10 * torch.randn(50, 40)).to(dtype)
    torch.testing.assert_close(softmax(scores), torch.softmax(scores, dim=-1))


def test_attention_by_loop():
    torch.manual_seed(0)
    q, k, v = (torch.randn(6, 3, dtype=torch.float64) for _ in range(3))
    for i, row in enumerate(attention(q, k, v, causal_mask(6, 6))):
        shares = [math.exp(q[i] @ k[j] / math.sqrt(3)) for j in range(i + 1)]
        expected = sum(share * v[j] for j, share in enumerate(shares)) / sum(shares)
        torch.testing.assert_close(row, expected)


def test_attention_agrees_with_pytorch():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 8, dtype=torch.float64) for _ in range(3))
    expected = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attention(q, k, v, causal_mask(5, 5)), expected)
    total = attention_weights(q, k, causal_mask(5, 5)).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_one_head_is_single_head_attention():
    torch.manual_seed(0)
    single, multi = SingleHeadAttention(8), MultiHeadAttention(8, num_heads=1)
    multi.load_state_dict(single.state_dict())
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(multi(x), single(x))


def test_heads_do_not_mix_before_the_output_projection():
    torch.manual_seed(0)
    layer = MultiHeadAttention(8, num_heads=2)
    nn.init.eye_(layer.W_o.weight)
    x = torch.randn(1, 5, 8)
    before = layer(x)
    with torch.no_grad():
        layer.W_q.weight[4:] += 1.0
    after = layer(x)
    torch.testing.assert_close(after[..., :4], before[..., :4])
    assert not torch.allclose(after[..., 4:], before[..., 4:])


def test_split_and_merge_are_inverse():
    layer = MultiHeadAttention(12, num_heads=3)
    x = random_ids(2, 60).view(2, 5, 12).float()
    assert layer.split_heads(x).shape == (2, 3, 5, 4)
    assert torch.equal(layer.merge_heads(layer.split_heads(x)), x)


@pytest.mark.parametrize("num_heads", [0, 3])
def test_heads_must_divide_the_model(num_heads):
    with pytest.raises(ValueError, match=f"num_heads={num_heads}"):
        MultiHeadAttention(8, num_heads)
