"""Wrong answers that students write to notebook 02: each fails, with a message about its fault."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import checks
from course_utils.transformer import DecoderLayer, FeedForward

pytestmark = pytest.mark.authors

EPS = 1e-5


def mean(x):
    return x.mean(-1, keepdim=True)


def variance(x, unbiased=False):
    return x.var(-1, keepdim=True, unbiased=unbiased)


def right(x, weight, bias, eps=EPS):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def norm_in_place(x, weight, bias, eps=EPS):
    x -= mean(x)
    return right(x, weight, bias, eps)


def norm_of(divisor, average=mean, default=EPS, end=lambda normed, w, b: normed * w + b):
    def layer_norm(x, weight, bias, eps=default):
        return end((x - average(x)) / divisor(x, eps), weight, bias)

    return layer_norm


def root(x, eps):
    return torch.sqrt(variance(x) + eps)


def moments(x):
    return mean(x**2) - mean(x) ** 2


def in_float32(x, w, b, eps=EPS):
    return norm_of(root)(x.float(), w.float(), b.float(), eps).to(x.dtype)


def along(dim):
    return norm_of(
        lambda x, eps: torch.sqrt(x.var(dim, keepdim=True, unbiased=False) + eps),
        lambda x: x.mean(dim, keepdim=True),
    )


UNDER = "eps goes under the root"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (norm_of(lambda x, eps: x.std(-1, keepdim=True)), "d - 1.*add eps to it"),
        (norm_of(lambda x, eps: x.std(-1, keepdim=True) + eps), f"d - 1.*{UNDER}"),
        (norm_of(lambda x, eps: torch.sqrt(variance(x, True) + eps)), "\\(unbiased=False\\)\\.$"),
        (norm_of(lambda x, eps: variance(x) + eps), "square root of the variance"),
        (norm_of(lambda x, eps: 1 / root(x, eps)), "Divide by the root"),
        (norm_of(lambda x, eps: torch.sqrt(variance(x) * x.size(-1) + eps)), "divided by d"),
        (norm_of(lambda x, eps: torch.sqrt(variance(x))), "add eps to it"),
        (norm_of(lambda x, eps: torch.sqrt(variance(x)) + eps), UNDER),
        (norm_of(lambda x, eps: root(x, EPS)), "eps that was handed in"),
        (norm_of(lambda x, eps: root(x, 1e-8)), "eps that was handed in, 1e-5 if there is none"),
        *((norm_of(root, default=eps), "it is 1e-5") for eps in (1e-3, 1e-6, 1e-8, 1e-12)),
        (norm_of(lambda x, eps: torch.sqrt(moments(x) + eps)), "loses all its digits far from 0"),
        (
            norm_of(lambda x, eps: torch.sqrt(moments(x).clamp(min=0) + eps)),
            "3000, 3001.*loses all its digits far from 0",
        ),
        (along(0), "those of each token: dim=-1"),
        (along(-2), "those of each token: dim=-1"),
        (
            norm_of(
                lambda x, eps: torch.sqrt(x.var(-1, unbiased=False) + eps), lambda x: x.mean(-1)
            ),
            "need keepdim=True",
        ),
        (norm_of(root, lambda x: 0), "The average is not subtracted"),
        (norm_of(lambda x, eps: torch.sqrt(mean(x * x) + eps), lambda x: 0), "average square"),
        (norm_of(root, end=lambda normed, w, b: normed), "weight and bias are not used"),
        (norm_of(root, end=lambda normed, w, b: normed * w), "The bias is not added"),
        (norm_of(root, end=lambda normed, w, b: normed + b), "The weight is not used"),
        (norm_of(root, end=lambda normed, w, b: (normed + b) * w), "The weight comes first"),
        (norm_of(root, end=lambda normed, w, b: normed * b + w), "are exchanged"),
        (norm_of(root, end=lambda normed, w, b: normed.detach() * w + b), "is something detached"),
        (
            norm_of(lambda x, eps: root(x, eps).detach(), lambda x: mean(x).detach()),
            "the gradient of argument 1.*is something detached",
        ),
        (in_float32, "right to 7 digits only"),
        (norm_in_place, "changes a tensor that came in"),
        (lambda x, w, b: right(x, w, b), "0.5\\) raised TypeError: .* 3 positional arguments"),
        (lambda x, w, b, eps: right(x, w, b, eps), "raised TypeError: .* argument: 'eps'"),
        (lambda x, weight, bias, eps=EPS: None, "is None: the function returns nothing"),
        (
            lambda x, w, b, eps=EPS: torch.stack([right(row, w, b, eps) for row in x]),
            "raised RuntimeError at `.*normalized_shape",
        ),
        (lambda x, w, b, eps=EPS: right(x, w, b, eps).double(), "dtype torch.float64, expected"),
    ],
)
def test_wrong_layer_norm(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_layer_norm(answer)


def feed_forward(forward):
    return type("Wrong", (FeedForward,), {"forward": forward})


class OtherNames(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)


class NoBias(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_ff, bias=False)
        self.fc2 = nn.Linear(d_ff, d_model, bias=False)


class Exchanged(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d_ff, d_model), nn.Linear(d_model, d_ff)


class FourTimes(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)


class NotFinished(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc1 = nn.Linear(d_model)


class WithoutSuper(FeedForward):
    def __init__(self, d_model, d_ff):
        self.fc1 = nn.Linear(d_model, d_ff)


WRONG_PARTS = [
    (lambda m, x: m.fc2(m.fc1(x)), "The ReLU is missing: fc1, then torch.relu, then fc2"),
    (lambda m, x: m.fc2(m.fc1(x).relu()).relu(), "There is a second ReLU, after fc2"),
    (lambda m, x: m.fc2(m.fc1(x)).relu(), "The ReLU comes last"),
    (lambda m, x: m.fc2(m.fc1(x.relu())), "The ReLU comes first"),
    (lambda m, x: m.fc2(F.gelu(m.fc1(x))), "a GELU.*fc1, then torch.relu, then fc2"),
    (lambda m, x: m.fc2(F.silu(m.fc1(x))), "a SiLU"),
    (lambda m, x: m.fc2(F.leaky_relu(m.fc1(x))), "a leaky ReLU"),
    (lambda m, x: m.fc2(F.relu6(m.fc1(x))), "It should be fc1, then torch.relu, then fc2"),
    (lambda m, x: m.fc2((-m.fc1(x)).relu()), "It should be fc1, then torch.relu, then fc2"),
    (lambda m, x: m.fc1(x).relu(), "It should be fc1, then torch.relu, then fc2"),
    (lambda m, x: x + m.fc2(m.fc1(x).relu()), "x is added.*by the layer, in exercise 3"),
    (lambda m, x: m.fc2(m.fc1(x.mul_(2)).relu()), "changes a tensor that came in"),
    (lambda m, x: F.dropout(m.fc2(m.fc1(x).relu()), 0.1, m.training), "else each time"),
    (lambda m, x: m.fc2(m.fc1(x).relu().detach()), "gradient of fc1.*is something detached"),
    (lambda m, x: m.fc2(m.fc1(x.detach()).relu()), "gradient of argument 1"),
    (lambda m, x: None, "is None"),
]


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        *((feed_forward(forward), words) for forward, words in WRONG_PARTS),
        (OtherNames, "your class has linear1, linear2; expected fc1, fc2\\."),
        (NoBias, "your class has nothing there; expected fc1.bias, fc2.bias\\."),
        (Exchanged, "fc1.weight of your class has shape \\(3, 5\\), expected \\(5, 3\\)"),
        (FourTimes, "fc1.weight of your class has shape \\(12, 3\\), expected \\(5, 3\\)"),
        (NotFinished, "with d_model=3, d_ff=5 raised TypeError at `self.fc1 = nn.Linear\\(d_model"),
        (WithoutSuper, "raised AttributeError at .*before Module.__init__\\(\\) call\\.$"),
    ],
)
def test_wrong_feed_forward(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_feed_forward(cls)


def layer(forward):
    return type("Wrong", (DecoderLayer,), {"forward": forward})


def attend(m, x):
    return m.attention(m.norm1(x))


def feed(m, x):
    return m.feed_forward(m.norm2(x))


def steps(*parts):
    """A layer that does these one after the other, each with what the one before returned."""

    def forward(m, x):
        for part in parts:
            x = part(m, x)
        return x

    return layer(forward)


def attended(m, x):
    return x + m.dropout(attend(m, x))


def fed(m, x):
    return x + m.dropout(feed(m, x))


class OneHeadInTheLayer(DecoderLayer):
    def __init__(self, d_model, d_ff, num_heads=1, dropout=0.1):
        super().__init__(d_model, d_ff, dropout=dropout)


class HasDropout(DecoderLayer):
    """With a dropout that depends on the one handed in, and a default."""

    def __init__(self, d_model, d_ff, num_heads=1, dropout=0.1, change=lambda p: p):
        super().__init__(d_model, d_ff, num_heads, change(dropout))


class DropsATenth(HasDropout):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options, change=lambda p: 0.1)


class KeepsThatShare(HasDropout):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options, change=lambda p: 1 - p)


class DropsAFifthByDefault(DecoderLayer):
    def __init__(self, d_model, d_ff, num_heads=1, dropout=0.2):
        super().__init__(d_model, d_ff, num_heads, dropout)


def drops(drop):
    """A layer that drops what each part adds like this."""
    return steps(
        lambda m, x: x + drop(m, attend(m, x)),
        lambda m, x: x + drop(m, feed(m, x)),
    )


ON_EACH = "Dropout goes on what each part adds"
WRONG_LAYERS = [
    (
        (
            lambda m, x: m.norm1(x),
            lambda m, x: m.norm2(x + m.attention(x)),
            lambda m, x: x + m.feed_forward(x),
        ),
        "The stream itself is normed",
    ),
    (
        (lambda m, x: m.norm1(x), lambda m, x: x + m.attention(x), fed),
        "The stream itself is normed",
    ),
    (
        (lambda m, x: x + m.attention(m.norm2(x)), lambda m, x: x + m.feed_forward(m.norm1(x))),
        "they are exchanged",
    ),
    ((attended, lambda m, x: x + m.feed_forward(m.norm1(x))), "norm1 is used twice"),
    ((lambda m, x: x + m.attention(m.norm2(x)), fed), "norm2 is used twice"),
    (
        (lambda m, x: m.norm1(x + m.attention(x)), lambda m, x: m.norm2(x + m.feed_forward(x))),
        "post-norm",
    ),
    ((lambda m, x: x + m.attention(x), lambda m, x: x + m.feed_forward(x)), "norms are missing"),
    ((lambda m, x: x + m.attention(x), fed), "norm1 is missing"),
    ((attended, lambda m, x: x + m.feed_forward(x)), "norm2 is missing"),
    ((attend, feed), "The stream is lost: add each"),
    ((attend, fed), "The stream is lost after attention"),
    ((attended, feed), "The stream is lost after the feed-forward part"),
    ((lambda m, x: x + attend(m, x) + feed(m, x),), "Both parts read the same x"),
    ((lambda m, x: x + feed(m, x + attend(m, x)),), "What attention added is lost"),
    ((attended,), "The feed-forward part is missing"),
    ((fed,), "Attention is missing"),
    ((fed, attended), "Attention comes first"),
    ((lambda m, x: x.add_(attend(m, x)), fed), "changes a tensor that came in"),
    ((lambda m, x: attended(m, x.detach()), fed), "the gradient of argument 1.*detached"),
    ((lambda m, x: x + attend(m, x).detach(), fed), "the gradient of norm1.*detached"),
    ((lambda m, x: (fed(m, attended(m, x)), None),), "is a tuple, expected a torch.Tensor"),
    ((attended, lambda m, x: x + feed(m, x)), "what the feed-forward part adds is not dropped"),
    ((lambda m, x: x + attend(m, x), fed), "what attention adds is not dropped"),
    (
        (lambda m, x: m.dropout(x + attend(m, x)), lambda m, x: m.dropout(x + feed(m, x))),
        f"not what dropout makes of it.*{ON_EACH}",
    ),
    ((attended, fed, lambda m, x: m.dropout(x)), f"not what dropout makes of it.*{ON_EACH}"),
    (
        (lambda m, x: x + m.attention(m.dropout(m.norm1(x))), fed),
        f"not what dropout makes of it.*{ON_EACH}",
    ),
]
WRONG_DROPS = [
    (lambda m, x: x, ON_EACH),
    (lambda m, x: m.dropout(m.dropout(x)), "is dropped twice"),
    (lambda m, x: F.dropout(x, m.dropout.p), "After eval\\(\\) it gives something else each time"),
    (lambda m, x: F.dropout(x, 0.1, m.training), "is 0 for 1.% of the numbers, and 1.11 times"),
    (lambda m, x: F.dropout1d(x, m.dropout.p, m.training), "or for whole rows at once"),
    (lambda m, x: m.dropout(torch.ones_like(x[:1, :1])) * x, "or for whole rows at once"),
    (lambda m, x: m.dropout(torch.ones_like(x[:1])) * x, "or for whole rows at once"),
    (
        lambda m, x: m.dropout(x) * (1 - m.dropout.p if m.training else 1),
        "of the numbers, and 1 times the others",
    ),
    (lambda m, x: F.alpha_dropout(x, m.dropout.p, m.training), "not what dropout makes of it"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("cls", "words"),
    [
        *((steps(*parts), words) for parts, words in WRONG_LAYERS),
        *((drops(drop), words) for drop, words in WRONG_DROPS),
        (OneHeadInTheLayer, "attention has one head: hand num_heads on"),
        (DropsATenth, "dropout=0.25, .* is 0 for 1.% .*with the dropout that was handed in"),
        (KeepsThatShare, "and 4 times the others: expected 0 for 25%"),
        (DropsAFifthByDefault, "With dropout=0.1, .*, and 1.25 times the others"),
        (layer(lambda m, x: None), "is None: the function returns nothing"),
    ],
)
def test_wrong_layer(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_decoder_layer(cls)


class PartByPart(FeedForward):
    def forward(self, x):
        hidden = torch.einsum("btd,fd->btf", x, self.fc1.weight) + self.fc1.bias
        return torch.where(hidden > 0, hidden, 0) @ self.fc2.weight.T + self.fc2.bias


class TokenByToken(FeedForward):
    def forward(self, x):
        tokens = [self.fc2(torch.clamp(self.fc1(x[:, i]), min=0)) for i in range(x.size(1))]
        return torch.stack(tokens, dim=1)


class InPlace(DecoderLayer):
    """Changes what it made itself, and drops by a mask of its own."""

    def forward(self, x):
        stream = x.clone()
        stream += self.dropped(self.attention(self.norm1(x)))
        return stream + self.dropped(self.feed_forward(self.norm2(stream)))

    def dropped(self, x):
        p = self.dropout.p
        return x * (torch.rand_like(x) >= p) / (1 - p) if self.training and p else x


class TwoDropouts(DecoderLayer):
    def __init__(self, d_model, d_ff, num_heads=1, dropout=0.1):
        super().__init__(d_model, d_ff, num_heads, dropout)
        self.another = nn.Dropout(dropout)

    def forward(self, x):
        attended = self.dropout(self.attention(self.norm1(x))).add(x)
        return self.another(self.feed_forward(self.norm2(attended))).add(attended)


class Functional(DecoderLayer):
    def forward(self, x):
        for norm, part in ((self.norm1, self.attention), (self.norm2, self.feed_forward)):
            x = x + F.dropout(part(norm(x)), self.dropout.p, self.training)
        return x


def by_sums(x, weight, bias, eps=EPS):
    d = x.size(-1)
    centred = x - x.sum(-1, keepdim=True) / d
    return (
        centred * torch.rsqrt((centred * centred).sum(-1, keepdim=True) / d + eps) * weight + bias
    )


def by_power(x, weight, bias, eps=EPS):
    spread, average = torch.var_mean(x, -1, correction=0, keepdim=True)
    return weight * (x - average) * (spread + eps) ** -0.5 + bias


def in_float64(x, weight, bias, eps=EPS):
    return norm_of(root)(x.double(), weight, bias, eps).to(x.dtype)


def by_std(x, weight, bias, eps=EPS):
    spread = x.std(-1, keepdim=True, correction=0)
    return torch.addcmul(bias, (x - mean(x)) / (spread * spread + eps).sqrt(), weight)


@pytest.mark.parametrize("answer", [right, by_sums, by_power, in_float64, by_std, norm_of(root)])
def test_right_layer_norms_pass(answer):
    checks.check_layer_norm(answer)


@pytest.mark.parametrize("cls", [FeedForward, PartByPart, TokenByToken])
def test_right_feed_forward_parts_pass(cls):
    checks.check_feed_forward(cls)


@pytest.mark.parametrize("cls", [DecoderLayer, InPlace, TwoDropouts, Functional, HasDropout])
def test_right_layers_pass(cls):
    checks.check_decoder_layer(cls)
