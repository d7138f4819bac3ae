"""Wrong answers that students write to notebook 01: each fails, with a message about its fault."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import attention, checks

pytestmark = pytest.mark.authors


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

    def without_keepdim(x):
        powers = torch.exp(x - x.amax(-1, keepdim=True))
        return powers / powers.sum(-1)

    def both_without_keepdim(x):
        powers = torch.exp(x - x.amax(-1))
        return powers / powers.sum(-1)

    def even_where_masked(x):
        found = attention.softmax(x)
        return found.where(~(x == -math.inf).all(-1, keepdim=True), 1 / x.size(-1))

    def in_16_bits(x):
        powers = torch.exp(
            x - x.amax(-1, keepdim=True).masked_fill(x.isneginf().all(-1)[..., None], 0)
        )
        total = powers.sum(-1, keepdim=True)
        return powers / total.masked_fill(total == 0, 1)

    def only_bfloat16(x):
        return attention.softmax(x) if x.dtype == torch.bfloat16 else in_16_bits(x)

    def through_python(x):
        return torch.tensor(attention.softmax(x).tolist(), dtype=x.dtype)

    def changes_what_is_needed(x):
        y = x.float() if x.element_size() < 4 else x
        row_max = y.amax(-1, keepdim=True)
        row_max.masked_fill_(row_max == -math.inf, 0)
        return (in_16_bits(y - row_max)).to(x.dtype)

    yield naive, "\\[\\[0, 1000\\]\\]\\)\\) holds NaN.*Subtract each row's own maximum first"
    yield one_maximum_for_all, "-1000, -999.*holds NaN.*Each row has its own maximum"
    yield changes_its_input, "changes a tensor that came in"
    yield keeps_float32, "has dtype torch.float32, expected torch.float64"
    yield sums_over_all, "All weights together sum to 1"
    yield without_keepdim, "The sum needs keepdim=True"
    yield both_without_keepdim, "The maximum needs keepdim=True.*So does the sum"
    yield (
        even_where_masked,
        "is \\[\\[0.5, 0.5\\], \\[0, 1\\]\\], expected \\[\\[0, 0\\], \\[0, 1\\]\\]\\.$",
    )
    yield in_16_bits, "too coarse to add up: compute in float32"
    yield only_bfloat16, "torch.float16.*Compute 16-bit numbers in float32"
    yield through_python, "has no gradient.*Training needs"
    yield changes_what_is_needed, "is right, but training fails on the way back"
    yield lambda x: attention.softmax(x.double()), "has dtype torch.float64, expected torch.float32"
    yield lambda x: attention.softmax(x.float()).to(x.dtype), "right to 7 digits only"
    yield lambda x: attention.softmax(-x), "0.66524.*expected.*0.0090747\\].*\\]\\]\\.$"
    yield lambda x: torch.softmax(x.flatten(), 0).view_as(x), "All weights together sum to 1"
    yield lambda x: torch.softmax(x, 0), "Use dim=-1"
    yield lambda x: torch.softmax(x, -1), "In a fully masked row"
    yield lambda x: None, "is None: the function returns nothing"
    yield lambda x: torch.softmax(x, -1).numpy(), "is a ndarray, expected a torch.Tensor"
    yield lambda x: torch.log_softmax(x, -1), "logarithms of the weights"
    for more in (1e-5, 1e-6, 1e-8, 1e-9):
        yield adds(more), f"Something like {more:g} is added to the sum"


def adds(more):
    def softmax(x):
        y = x.float() if x.element_size() < 4 else x
        row_max = y.amax(-1, keepdim=True)
        powers = torch.exp(y - row_max.masked_fill(row_max == -math.inf, 0))
        return (powers / (powers.sum(-1, keepdim=True) + more)).to(x.dtype)

    return softmax


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), list(wrong_softmaxes()))
def test_wrong_softmax(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_softmax(answer)


def square(num_queries, num_keys):
    return torch.ones(num_queries, num_keys, dtype=torch.bool)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda q, k, on=None: square(q, k).tril(), "position 1 and does not see key 1"),
        (lambda q, k, on=None: square(q, k).triu(), "does not see key 0|sees key 1"),
        (lambda q, k, on=None: square(q, k).triu(1), "inverted"),
        (lambda q, k, on=None: square(q, k).tril(k - q - 1), "its own included"),
        (lambda q, k, on=None: square(q, k).tril(k - q + 1), "and sees key 1"),
        (lambda q, k, on=None: square(q, k).tril(q - k), "position 1 and does not see key 0"),
        (
            lambda q, k, on=None: square(q, k).tril(k - q).float(),
            "of dtype torch.float32, expected",
        ),
        (lambda q, k, on=None: square(k, k).tril(), "has shape \\(2, 2\\), expected \\(1, 2\\)"),
        (lambda q, k, on=None: square(16, 16).tril()[k - q : k, :k], "mask\\(3, 1200\\) has shape"),
        (lambda q, k, on=None: square(q, k), "query 0 is at position 0 and sees key 1"),
        (lambda q, k, on=None: square(q, k).tril(k - q).tolist(), "is a list"),
        (lambda q, k, on=None: None, "is None: the function returns nothing"),
        (
            lambda q, k, on=None: torch.arange(k) <= q[:, None],
            "4\\) raised TypeError at `.*`: 'int'",
        ),
        (lambda q, k: square(q, k).tril(k - q), "cpu'\\)\\) raised TypeError: .* 2 positional"),
        (lambda q, k, on=None: square(q, k).tril(k - q), "the result is on cpu.*Pass `device=`"),
        (
            lambda q, k, on=None: (
                torch.arange(k)[None] <= torch.arange(k - q, k, device=on)[:, None]
            ),
            "fails on another device, at `torch.arange",
        ),
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


def the_wrong_way_round(q, k, mask=None):
    return weights_of()(q, k, None if mask is None else ~mask)


def masked_and_divided_again(q, k, mask=None):
    weights = weights_of(after=True)(q, k, mask)
    return weights / weights.sum(-1, keepdim=True)


def by_product(q, k, mask=None):
    hidden = 0 if mask is None else (~mask) * -math.inf
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)) + hidden, -1)


def in_float32(q, k, mask=None):
    scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)
    scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)


def always_causal(q, k, mask=None):
    return weights_of()(q, k, attention.causal_mask(q.size(-2), k.size(-2), q.device))


def mask_on_the_cpu(q, k, mask=None):
    return weights_of()(q, k, square(q.size(-2), k.size(-2)) if mask is None else mask)


def scales_in_place(q, k, mask=None):
    q /= math.sqrt(q.size(-1))
    return weights_of(lambda d: 1)(q, k, mask)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (weights_of(lambda d: 1), "not divided"),
        (weights_of(lambda d: d), "divide by its square root"),
        (weights_of(lambda d: 1 / math.sqrt(d)), "multiplied by sqrt\\(d\\)"),
        (weights_of(lambda d: math.sqrt(3)), "sqrt\\(3\\), which was right for the story"),
        (weights_of(after=True), "before the softmax"),
        (masked_and_divided_again, "holds NaN.*before the softmax"),
        *((weights_of(fill=x), "must be -math.inf") for x in (0.0, -20.0, -100.0, -1e4)),
        (by_product, "0 times infinity is not a number"),
        (forgets_the_mask, "The mask is not used"),
        (inverted, "\\(5, 6\\)>\\) is 0 at"),
        (the_wrong_way_round, "The mask is used the wrong way round"),
        (weights_of(dim=-2), "columns sum to 1"),
        (weights_of(dim=0), "The softmax goes along dim=0"),
        (in_float32, "right to 7 digits only"),
        (scales_in_place, "changes a tensor that came in"),
        (always_causal, "A causal mask is used, whatever mask came in"),
        (lambda q, k, mask=None: weights_of()(k, q, mask), "Queries and keys are exchanged"),
        (lambda q, k, mask=None: weights_of()(q, k, mask).detach(), "has no gradient"),
        (lambda q, k, mask: weights_of()(q, k, mask), "missing 1 required positional argument"),
        (lambda q, k, mask=None: None, "is None"),
        (
            lambda q, k, mask=None: weights_of(lambda d: len(q) ** 0.5)(q, k, mask),
            "first size of q",
        ),
    ],
)
def test_wrong_weights(weights, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_attention(weights, attention_from(weights))


def test_a_mask_on_the_cpu_is_only_remarked():
    said = checks.check_attention(mask_on_the_cpu, attention_from(mask_on_the_cpu))
    said = " ".join(said.split())
    assert "attention is right" in said
    assert "on a GPU it counts: attention fails on another device" in said


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda q, k, v, mask=None: weights_of()(q, k) @ v, "The mask is not handed on"),
        (lambda q, k, v, mask=None: weights_of()(q, k, mask), "The values are missing"),
        (lambda q, k, v, mask=None: weights_of()(q, k, mask) @ k, "multiplied with the keys"),
        (lambda q, k, v, mask=None: q[..., :1] + weights_of()(q, k, mask) @ v, "weights, with the"),
        (lambda q, k, v, mask=None: weights_of()(q, k, mask).detach() @ v, "the gradient of argum"),
        (lambda q, k, v, mask=None: weights_of()(q, k, mask) @ v.mul_(2), "changes a tensor"),
        (lambda q, k, v, mask=None: (weights_of()(q, k, mask) @ v).float(), "dtype torch.float32"),
    ],
)
def test_right_weights_wrong_attention(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_attention(attention.attention_weights, answer)


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
        (asks_for_truth, "at `if mask:`.*`is not None`"),
        (
            not_transposed,
            "raised RuntimeError at `.*q @ k.*mat1 and mat2 shapes cannot be multiplied",
        ),
    ],
)
def test_errors_of_pytorch_come_with_line_and_shapes(weights, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_attention(weights, attention_from(weights))


def test_right_but_different_answers_pass():
    def by_einsum(q, k, mask=None):
        scores = torch.einsum("...qd,...kd->...qk", q, k) * q.size(-1) ** -0.5
        bias = 0 if mask is None else torch.where(mask, 0.0, -math.inf)
        return F.softmax(scores + bias, dim=-1)

    def fused(q, k, v, mask=None):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def with_a_large_number(q, k, mask=None):
        return weights_of(fill=torch.finfo(q.dtype).min)(q, k, mask)

    def by_loop(q, k, v, mask=None):
        rows = [
            weights_of()(q[..., i : i + 1, :], k, mask if mask is None else mask[i : i + 1])
            for i in range(q.size(-2))
        ]
        return torch.cat([(row.transpose(-2, -1) * v).sum(-2, keepdim=True) for row in rows], -2)

    checks.check_attention(by_einsum, fused)
    checks.check_attention(with_a_large_number, by_loop)
    checks.check_softmax(lambda x: torch.softmax(x, -1).nan_to_num(0))
    checks.check_softmax(lambda x: torch.softmax(x.double(), -1).nan_to_num(0).to(x.dtype))
    checks.check_softmax(by_logarithm)
    checks.check_softmax(adds(1e-12))
    checks.check_causal_mask(lambda q, k, on=None: ~square(q, k).to(on).triu(k - q + 1))
    checks.check_causal_mask(mask_by_loop)
    for right in (attention.MultiHeadAttention, attention.FusedAttention, HeadByHead):
        checks.check_multi_head(right)


def by_logarithm(x):
    y = x.float() if x.element_size() < 4 else x
    total = torch.logsumexp(y, -1, keepdim=True)
    return torch.exp(y - total.masked_fill(total == -math.inf, 0)).to(x.dtype)


def mask_by_loop(num_queries, num_keys, device=None):
    mask = torch.zeros(num_queries, num_keys, dtype=torch.bool, device=device)
    for query in range(num_queries):
        mask[query, : num_keys - num_queries + query + 1] = True
    return mask


class HeadByHead(attention.MultiHeadAttention):
    """Each head with its own rows of the matrices, one after the other."""

    def forward(self, x):
        mask, found = attention.causal_mask(x.size(1), x.size(1), x.device), []
        for rows in torch.arange(x.size(-1)).chunk(self.num_heads):
            q, k, v = (x @ W.weight[rows].T for W in (self.W_q, self.W_k, self.W_v))
            found.append(attention.attention(q, k, v, mask))
        return torch.cat(found, -1) @ self.W_o.weight.T


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


class TakesEveryHth(attention.MultiHeadAttention):
    def split_heads(self, x):
        return x.view(*x.shape[:2], -1, self.num_heads).permute(0, 3, 1, 2)


class TwoByDefault(attention.MultiHeadAttention):
    def __init__(self, d_model, num_heads=2):
        super().__init__(d_model, num_heads if d_model % num_heads == 0 else 1)


class MergesByView(attention.MultiHeadAttention):
    def merge_heads(self, x):
        return x.transpose(1, 2).view(x.size(0), x.size(2), -1)


class KeepsItsMask(attention.MultiHeadAttention):
    def attend(self, q, k, v):
        if not hasattr(self, "mask"):
            self.mask = attention.causal_mask(q.size(-2), q.size(-2), q.device)
        return attention.attention(q, k, v, self.mask)


class KeepsABiggerMask(KeepsItsMask):
    def attend(self, q, k, v):
        if not hasattr(self, "mask"):
            self.mask = attention.causal_mask(5, 5, q.device)
        return attention.attention(q, k, v, self.mask[: q.size(-2), : q.size(-2)])


class MaskOnTheCPU(attention.MultiHeadAttention):
    def attend(self, q, k, v):
        return attention.attention(q, k, v, attention.causal_mask(q.size(-2), k.size(-2)))


def forwards(names="qkv", last="o", then=lambda x, found: found, before=lambda x: x, mask=True):
    """Attention with these matrices, a change of x before, and of what comes out."""

    class Wrong(attention.MultiHeadAttention):
        def forward(self, x):
            y = before(x)
            q, k, v = (
                self.split_heads(getattr(self, f"W_{n}")(y) if n != "x" else y) for n in names
            )
            hidden = attention.causal_mask(x.size(1), x.size(1), x.device)
            found = attention.attention(q, k, v, hidden if mask is True else mask and hidden.T)
            return then(x, getattr(self, f"W_{last}")(self.merge_heads(found)))

    return Wrong


FORWARDS = [
    ({"names": "qkk"}, "W_k is used for the values, too"),
    ({"names": "qkx"}, "x itself is used for the values"),
    ({"names": "vkq"}, "W_q and W_v are exchanged"),
    ({"names": "kqv"}, "W_q and W_k are exchanged"),
    ({"last": "q"}, "W_q comes last, where W_o should"),
    ({"mask": None}, "Nothing is masked"),
    ({"mask": "past"}, "The mask hides the past"),
    ({"then": lambda x, found: x + found}, "x is added to the result"),
    ({"then": lambda x, found: (found, None)}, "is a tuple, expected a torch.Tensor"),
    ({"then": lambda x, found: found.float()}, "has dtype torch.float32"),
    ({"then": lambda x, found: found.detach()}, "has no gradient"),
    ({"before": lambda x: x.mul_(2)}, "changes a tensor that came in"),
    ({"before": lambda x: x.detach()}, "the gradient of argument 1.*is something detached"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (NoOutputMatrix, "not the expected ones.*W_o"),
        (ViewOnly, "shuffled among positions and heads"),
        (HeadsLast, "has shape .*transpose\\(1, 2\\) is missing"),
        (MergesWrongly, "merge_heads.*are shuffled: transpose\\(1, 2\\) has to come before"),
        (OtherNames, "your class has W_query; expected W_q"),
        (TooWide, "W_q.weight of your class has shape \\(12, 6\\), expected \\(6, 6\\)"),
        (NoMask, "Nothing is masked"),
        (NoOutput, "W_o is missing"),
        (SwapsKeysAndValues, "W_k and W_v are exchanged"),
        (ScalesByModel, "split_heads and merge_heads are right: look at forward"),
        (TakesEveryHth, "Head 0 takes the \\*first\\* d numbers"),
        (TwoByDefault, "\\(d_model=2\\).split_heads.*has shape \\(1, 2, 1, 1\\)"),
        (MergesByView, "raised RuntimeError at `.*`reshape` copies them first"),
        (
            KeepsItsMask,
            "used on .*2, 4, 6.* gets .*2, 2, 6.* the next time, and raised RuntimeError",
        ),
        (KeepsABiggerMask, "used on .* gets .*5, 6, 6.* the next time, and raised"),
        (MaskOnTheCPU, "fails on another device, at `"),
        *((forwards(**wrong), words) for wrong, words in FORWARDS),
    ],
)
def test_wrong_heads(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_multi_head(cls)


def test_an_untouched_stub_says_so():
    class Stub(nn.Module):
        def __init__(self, *_, **__):
            raise NotImplementedError("Your turn: see the card above.")

    with pytest.raises(NotImplementedError, match="see the card"):
        checks.check_multi_head(Stub)
