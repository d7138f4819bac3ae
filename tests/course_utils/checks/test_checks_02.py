"""Wrong answers that students write to notebook 02: each fails, with a message about its fault."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import checks
from course_utils.transformer import DecoderLayer, FeedForward

EPS = 1e-5


def centred(x):
    return x - x.mean(-1, keepdim=True)


def norm_in_place(x, weight, bias):
    x -= x.mean(-1, keepdim=True)
    return F.layer_norm(x, x.shape[-1:], weight, bias)


def norm_of(scale, over=-1):
    def layer_norm(x, weight, bias):
        return (x - x.mean(over, keepdim=True)) / scale(x) * weight + bias

    return layer_norm


def deviation(x, over=-1):
    return torch.sqrt(x.var(over, keepdim=True, unbiased=False) + EPS)


def rooted_first(x, eps):
    return centred(x) / (x.var(-1, keepdim=True, unbiased=False).sqrt() + eps)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (norm_of(lambda x: x.std(-1, keepdim=True)), "d - 1"),
        (norm_of(lambda x: x.var(-1, keepdim=True, unbiased=True)), "square root of the variance"),
        (norm_of(lambda x: deviation(x, -2), over=-2), "layer_norm of shape \\(6, 3\\) is"),
        (norm_of(lambda x: x.var(-1, keepdim=True, unbiased=False).sqrt()), "add eps to it"),
        (lambda x, weight, bias: centred(x) / deviation(x), "weight and bias are not used"),
        (lambda x, weight, bias: x / deviation(x) * weight + bias, "layer_norm of shape"),
        (norm_in_place, "was changed"),
        (lambda x, w, b, eps=EPS: rooted_first(x, eps) * w + b, "eps goes under the root"),
        (lambda x, w, b, eps=EPS: F.layer_norm(x, x.shape[-1:], w, b), "eps that was handed in"),
        (lambda x, w, b, eps=EPS: F.layer_norm(x, x.shape[-1:], w), "The bias is not added"),
        (lambda x, weight, bias: None, "is None"),
        (lambda x, w, b: F.layer_norm(x, x.shape) * w + b, "are of the whole tensor"),
        (
            lambda x, weight, bias: F.layer_norm(x, x.shape[-1:], weight, bias).double(),
            "dtype torch.float64",
        ),
    ],
)
def test_wrong_layer_norm(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_layer_norm(answer)


class NoReLU(FeedForward):
    def forward(self, x):
        return self.fc2(self.fc1(x))


class GELU(FeedForward):
    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class ReLUAtTheEnd(FeedForward):
    def forward(self, x):
        return torch.relu(self.fc2(self.fc1(x)))


class SecondReLU(FeedForward):
    def forward(self, x):
        return super().forward(x).relu()


class AddsItsInput(FeedForward):
    def forward(self, x):
        return x + super().forward(x)


class OtherNames(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)


class NoBias(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_ff, bias=False)
        self.fc2 = nn.Linear(d_ff, d_model, bias=False)


class Forgets(FeedForward):
    def forward(self, x):
        super().forward(x)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (NoReLU, "The ReLU is missing: fc1, then torch.relu, then fc2"),
        (SecondReLU, "There is a second ReLU, after fc2"),
        (GELU, "fc1, then torch.relu, then fc2"),
        (ReLUAtTheEnd, "The ReLU comes last"),
        (AddsItsInput, "fc1, then torch.relu, then fc2"),
        (OtherNames, "your class has linear1, linear2; expected fc1, fc2\\."),
        (NoBias, "your class has nothing there; expected fc1.bias, fc2.bias\\."),
        (Forgets, "is None"),
    ],
)
def test_wrong_feed_forward(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_feed_forward(cls)


class OneNorm(DecoderLayer):
    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm1(x))


class PostNorm(DecoderLayer):
    def forward(self, x):
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


class NoResidual(DecoderLayer):
    def forward(self, x):
        return self.feed_forward(self.norm2(self.attention(self.norm1(x))))


class Parallel(DecoderLayer):
    def forward(self, x):
        return x + self.attention(self.norm1(x)) + self.feed_forward(self.norm2(x))


class NoFeedForward(DecoderLayer):
    def forward(self, x):
        return x + self.attention(self.norm1(x))


class NormsTheStream(DecoderLayer):
    def forward(self, x):
        x = self.norm1(x)
        x = x + self.attention(x)
        return x + self.feed_forward(self.norm2(x))


class NormsItTwice(DecoderLayer):
    def forward(self, x):
        x = self.norm1(x)
        x = self.norm2(x + self.attention(x))
        return x + self.feed_forward(x)


class NormsExchanged(DecoderLayer):
    def forward(self, x):
        x = x + self.attention(self.norm2(x))
        return x + self.feed_forward(self.norm1(x))


class AddsInPlace(DecoderLayer):
    def forward(self, x):
        x += self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class OneHeadInTheLayer(DecoderLayer):
    def __init__(self, d_model, d_ff, num_heads=1, dropout=0.1):
        super().__init__(d_model, d_ff, dropout=dropout)


class DropsTheStream(DecoderLayer):
    def forward(self, x):
        x = self.dropout(x + self.attention(self.norm1(x)))
        return self.dropout(x + self.feed_forward(self.norm2(x)))


class DropsNothing(DecoderLayer):
    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (NormsItTwice, "The stream itself is normed"),
        (NormsExchanged, "they are exchanged"),
        (AddsInPlace, "was changed"),
        (DropsTheStream, "Dropout goes on what each part adds"),
        (DropsNothing, "Dropout goes on what each part adds"),
        (OneHeadInTheLayer, "attention has one head: hand num_heads on"),
        (OneNorm, "norm1 is used twice"),
        (PostNorm, "post-norm"),
        (NoResidual, "The stream is lost"),
        (Parallel, "Both parts read the same x"),
        (NoFeedForward, "the output of the layer is"),
        (NormsTheStream, "the output of the layer is"),
    ],
)
def test_wrong_layer(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_decoder_layer(cls)


def test_right_answers_pass():
    checks.check_layer_norm(lambda x, w, b, eps=1e-5: F.layer_norm(x, x.shape[-1:], w, b, eps))
    checks.check_feed_forward(FeedForward)
    checks.check_decoder_layer(DecoderLayer)
