"""Wrong answers that students write to notebook 01: each fails, with a message about its fault."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import attention, checks


def wrong_softmaxes():
    def naive(x):
        return torch.exp(x) / torch.exp(x).sum(-1, keepdim=True)

    def one_maximum_for_all(x):
        powers = torch.exp(x - x.max())
        return powers / powers.sum(-1, keepdim=True)

    def changes_its_input(x):
        x -= x.amax(-1, keepdim=True)
        return torch.softmax(x, -1)

    def keeps_float32(x):
        return attention.softmax(x.float())

    def sums_over_all(x):
        powers = torch.exp(x - x.amax(-1, keepdim=True))
        return powers / powers.sum()

    yield naive, "subtract each row's own maximum first"
    yield one_maximum_for_all, "each row's own maximum"
    yield changes_its_input, "was changed"
    yield keeps_float32, "dtype torch.float32, expected torch.bfloat16"
    yield sums_over_all, "softmax of small scores is"
    yield lambda x: torch.softmax(x.flatten(), 0).view_as(x), "keepdim=True"
    yield lambda x: torch.softmax(x, 0), "Use dim=-1"
    yield lambda x: torch.softmax(x, -1), "a fully masked row"
    yield lambda x: None, "is None"
    yield lambda x: torch.softmax(x, -1).numpy(), "is a ndarray"
    yield lambda x: torch.log_softmax(x, -1), "softmax of small scores is -"


@pytest.mark.parametrize(("answer", "words"), list(wrong_softmaxes()))
def test_wrong_softmax(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_softmax(answer)


def square(num_queries, num_keys):
    return torch.ones(num_queries, num_keys, dtype=torch.bool)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda q, k: square(q, k).tril(), "query 0 is at position 3 and does not see key 1"),
        (lambda q, k: square(q, k).triu(), "does not see key 0|sees key 1"),
        (lambda q, k: square(q, k).triu(1), "inverted"),
        (lambda q, k: square(q, k).tril(k - q - 1), "its own included"),
        (lambda q, k: square(q, k).tril(k - q + 1), "and sees key 1"),
        (lambda q, k: square(q, k).tril(k - q).float(), "torch.float32, expected"),
        (lambda q, k: square(k, k).tril(), "has shape \\(5, 5\\), expected \\(2, 5\\)"),
        (lambda q, k: square(q, k), "query 0 is at position 0 and sees key 1"),
        (lambda q, k: None, "is NoneType"),
    ],
)
def test_wrong_mask(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_causal_mask(answer)


def weights_of(scale=lambda d: math.sqrt(d), fill=-math.inf, after=False, dim=-1):
    def attention_weights(q, k, mask=None):
        scores = q @ k.transpose(-2, -1) / scale(q.size(-1))
        if mask is not None and not after:
            scores = scores.masked_fill(~mask, fill)
        weights = torch.softmax(scores, dim)
        return weights.masked_fill(~mask, 0) if mask is not None and after else weights

    return attention_weights


def attention_from(weights):
    return lambda q, k, v, mask=None: weights(q, k, mask) @ v


def inverted(q, k, mask=None):
    return weights_of()(q, k, None if mask is None else ~mask.tril(-1))


def forgets_the_mask(q, k, mask=None):
    return weights_of()(q, k, None)


def scales_in_place(q, k, mask=None):
    q /= math.sqrt(q.size(-1))
    return weights_of(lambda d: 1)(q, k, mask)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (weights_of(lambda d: 1), "not divided"),
        (weights_of(lambda d: d), "divide by its square root"),
        (weights_of(after=True), "applied before the softmax"),
        (weights_of(fill=0.0), "Row 0 attends to position 1"),
        (forgets_the_mask, "Row 0 attends to position 1: weight 0.\\d\\d, must be 0"),
        (inverted, "Row 0 attends to position 1"),
        (weights_of(dim=-2), "Columns sum to 1"),
        (scales_in_place, "was changed"),
        (lambda q, k, mask=None: None, "is None"),
    ],
)
def test_wrong_weights(weights, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_attention(weights, attention_from(weights))


def test_right_weights_wrong_attention():
    with pytest.raises(AssertionError, match="attention for queries"):
        checks.check_attention(
            attention.attention_weights, lambda q, k, v, mask=None: weights_of()(q, k) @ v
        )


def test_more_wrong_answers_are_named():
    with pytest.raises(AssertionError, match="Queries and keys are exchanged"):
        exchanged = lambda q, k, mask=None: weights_of()(k, q)  # noqa: E731
        checks.check_attention(exchanged, attention_from(exchanged))
    with pytest.raises(AssertionError, match="multiplied by sqrt\\(d\\)"):
        multiplied = weights_of(lambda d: 1 / math.sqrt(d))
        checks.check_attention(multiplied, attention_from(multiplied))
    with pytest.raises(AssertionError, match="on cpu, not on the device it was given"):
        checks.check_causal_mask(lambda q, k, device=None: attention.causal_mask(q, k))
    with pytest.raises(AssertionError, match="right to 7 digits only"):
        checks.check_softmax(lambda x: attention.softmax(x.float()).to(x.dtype))


def without_asking(q, k, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return torch.softmax(scores.masked_fill(~mask, -math.inf), -1)


def asks_for_truth(q, k, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    if mask:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, -1)


def not_transposed(q, k, mask=None):
    return torch.softmax(q @ k, -1)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (without_asking, "masked_fill\\(~mask.*mask may be None"),
        (asks_for_truth, "at `if mask:`.*`if mask is not None`"),
        (not_transposed, "Shapes given: \\(5, 3\\), \\(5, 3\\)"),
    ],
)
def test_errors_of_pytorch_come_with_line_and_shapes(weights, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_attention(weights, attention_from(weights))


def test_nan_is_told_in_a_sentence():
    with pytest.raises(AssertionError, match="maximum first\\) holds NaN"):
        checks.check_softmax(lambda x: x.exp() / x.exp().sum(-1, keepdim=True))


def test_right_but_different_answers_pass():
    def by_einsum(q, k, mask=None):
        scores = torch.einsum("...qd,...kd->...qk", q, k) * q.size(-1) ** -0.5
        bias = 0 if mask is None else torch.where(mask, 0.0, -math.inf)
        return F.softmax(scores + bias, dim=-1)

    def fused(q, k, v, mask=None):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    checks.check_attention(by_einsum, fused)
    checks.check_softmax(lambda x: torch.softmax(x, -1).nan_to_num(0))
    checks.check_causal_mask(lambda q, k, on=None: ~square(q, k).to(on).triu(k - q + 1))
    checks.check_multi_head(attention.MultiHeadAttention)
    checks.check_multi_head(attention.FusedAttention)


class ViewOnly(attention.MultiHeadAttention):
    def split_heads(self, x):
        return x.view(x.size(0), self.num_heads, x.size(1), -1)


class HeadsLast(attention.MultiHeadAttention):
    def split_heads(self, x):
        return super().split_heads(x).transpose(1, 2)


class MergesWrongly(attention.MultiHeadAttention):
    def merge_heads(self, x):
        return x.reshape(x.size(0), x.size(2), -1)


class NoMask(attention.MultiHeadAttention):
    def attend(self, q, k, v):
        return attention.attention(q, k, v)


class NoOutput(attention.MultiHeadAttention):
    def forward(self, x):
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        return self.merge_heads(self.attend(q, k, v))


class SwapsKeysAndValues(attention.MultiHeadAttention):
    def attend(self, q, k, v):
        return super().attend(q, v, k)


class ScalesByModel(attention.MultiHeadAttention):
    def attend(self, q, k, v):
        return super().attend(q / math.sqrt(self.num_heads), k, v)


class NoOutputMatrix(attention.MultiHeadAttention):
    def __init__(self, d_model, num_heads=1):
        super().__init__(d_model, num_heads)
        del self.W_o


class OtherNames(attention.MultiHeadAttention):
    def __init__(self, d_model, num_heads=1):
        super().__init__(d_model, num_heads)
        self.W_query = self.W_q
        del self.W_q


class TooWide(attention.MultiHeadAttention):
    def __init__(self, d_model, num_heads=1):
        super().__init__(d_model, num_heads)
        self.W_q = nn.Linear(d_model, 2 * d_model, bias=False)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (NoOutputMatrix, "not the expected ones.*W_o"),
        (ViewOnly, "shuffled among positions and heads"),
        (HeadsLast, "split_heads of .* has shape"),
        (MergesWrongly, "merge_heads shuffles the numbers"),
        (OtherNames, "your class has W_query; expected W_q"),
        (TooWide, "W_q.weight has shape \\(8, 4\\), expected \\(4, 4\\)"),
        (NoMask, "Nothing is masked"),
        (NoOutput, "W_o is missing"),
        (SwapsKeysAndValues, "the output for 1 heads"),
        (ScalesByModel, "the output for 3 heads"),
    ],
)
def test_wrong_heads(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_multi_head(cls)


def test_an_untouched_stub_says_so():
    class Stub(nn.Module):
        def __init__(self, *_):
            raise NotImplementedError("Exercise 4: see the card above.")

    with pytest.raises(NotImplementedError, match="see the card"):
        checks.check_multi_head(Stub)
