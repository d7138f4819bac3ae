"""What the check cells of the transformer block call (notebook 02)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..transformer import DecoderLayer, DecoderOnlyTransformer, FeedForward
from .common import ask, close, load_weights, pair, refuse_known, same, unchanged, verdict


@verdict
def check_layer_norm(layer_norm: Callable[..., Tensor]) -> str:
    """Notebook 02, exercise 1. Returns a verdict; raises AssertionError on a wrong layer norm."""
    torch.manual_seed(0)
    for shape in ((6, 3), (2, 5, 16)):
        x = 3 * torch.randn(shape) + 2
        weight, bias = torch.randn(shape[-1]), torch.randn(shape[-1])
        before = x.clone()
        found = layer_norm(x, weight, bias)
        unchanged([before], [x])
        centred = x - x.mean(-1, keepdim=True)
        deviation = x.std(-1, keepdim=True)
        unbiased = "The variance is divided by d - 1; here it is divided by d (unbiased=False)."
        refuse_known(found, [(centred / deviation * weight + bias, unbiased)], 1e-4)
        variances = deviation.square(), x.var(-1, keepdim=True, unbiased=False)
        by_variance = (centred / variance * weight + bias for variance in variances)
        no_root = "Divide by the square root of the variance."
        refuse_known(found, [(wrong, no_root) for wrong in by_variance], 1e-3)
        mistakes = [
            (F.layer_norm(x, shape[-1:]), "weight and bias are not used."),
            (F.layer_norm(x, shape[-1:], weight), "The bias is not added."),
            (F.rms_norm(x, shape[-1:], weight) + bias, "The average is not subtracted."),
            (
                F.layer_norm(x, shape) * weight + bias,
                "Average and variance are of the whole tensor; each position has its own (dim=-1).",
            ),
        ]
        refuse_known(found, mistakes, 1e-4)
        close(found, F.layer_norm(x, shape[-1:], weight, bias), f"layer_norm of shape {shape}")
    equal = torch.full((2, 4), 7.0)
    close(
        layer_norm(equal, torch.ones(4), torch.zeros(4)),
        torch.zeros(2, 4),
        "layer_norm of equal numbers (their variance is 0: add eps to it)",
    )
    small, scale, shift = 1e-3 * torch.randn(3, 8), torch.ones(8), torch.zeros(8)
    expected = F.layer_norm(small, (8,), scale, shift)
    close(
        layer_norm(small, scale, shift),
        expected,
        "layer_norm of numbers near 0.001 (eps goes under the root, beside the variance)",
    )
    close(
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
    load_weights(layer, reference)
    x = torch.randn(2, 5, 8)
    found = layer(x)
    order = "fc1, then torch.relu, then fc2"
    without_relu = reference.fc2(reference.fc1(x))
    mistakes = [
        (without_relu, f"The ReLU is missing: {order}."),
        (without_relu.relu(), f"The ReLU comes last, where nothing may be cut: {order}."),
        (reference(x).relu(), f"There is a second ReLU, after fc2: {order}."),
    ]
    refuse_known(found, mistakes)
    close(found, reference(x), f"the output ({order})")
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
    load_weights(layer, reference)
    x = torch.randn(2, 5, 12)
    before = x.clone()
    found = layer(x)
    unchanged([before], [x])
    refuse_known(found, _wrong_layers(reference, x))
    close(found, reference(x), "the output of the layer")
    if not same(layer_class(12, 24, num_heads=3, dropout=1.0).train()(x), x):
        raise AssertionError(
            "With dropout=1.0, in training, all that is added is dropped and x should come out as "
            "it went in. Dropout goes on what each part adds, and nowhere else."
        )
    return "DecoderLayer is right: pre-norm, two norms, two additions, dropout on what is added."


def _wrong_layers(r: DecoderLayer, x: Tensor) -> list[tuple[Tensor, str]]:
    """What usually goes wrong in a layer, as its output and in words."""
    one_head = DecoderLayer(12, 24, dropout=0.0)
    one_head.load_state_dict(r.state_dict())
    attended = x + r.attention(r.norm1(x))
    after_attention = r.norm1(x + r.attention(x))
    normed = r.norm2(r.norm1(x) + r.attention(r.norm1(x)))
    exchanged = x + r.attention(r.norm2(x))
    return [
        (one_head(x), "The attention has one head: hand num_heads on to it."),
        (
            attended + r.feed_forward(r.norm1(attended)),
            "norm1 is used twice: the feed-forward part has its own, norm2.",
        ),
        (
            r.norm2(after_attention + r.feed_forward(after_attention)),
            "The norms come after the additions (post-norm). Here each part gets a normed copy of "
            "the stream, and the stream itself is never normed (pre-norm).",
        ),
        (
            r.feed_forward(r.norm2(r.attention(r.norm1(x)))),
            "The stream is lost: add each part's output to x.",
        ),
        (
            attended + r.feed_forward(r.norm2(x)),
            "Both parts read the same x: the second one reads what the first one has left.",
        ),
        (
            normed + r.feed_forward(normed),
            "The stream itself is normed. A norm makes a copy for its part to read; add to x.",
        ),
        (
            exchanged + r.feed_forward(r.norm1(exchanged)),
            "norm1 belongs to the attention and norm2 to the feed-forward part; they are "
            "exchanged.",
        ),
    ]


@verdict
def check_model(model_class: type[nn.Module]) -> str:
    """Notebook 02, exercise 4. Returns a verdict; raises AssertionError on a wrong model."""
    torch.manual_seed(0)
    shape = {"vocab_size": 20, "d_model": 12, "d_ff": 24, "num_layers": 2, "max_seq_len": 10}
    reference = DecoderOnlyTransformer(**shape, num_heads=3, dropout=0.0).eval()
    model = model_class(**shape, num_heads=3, dropout=0.0).eval()
    load_weights(model, reference)
    for seq_len in (6, 1, 10):
        ids = torch.randint(20, (2, seq_len))
        found = ask(model, ids)
        logits, _ = pair(found, "forward returns two things: the logits, and None.")
        if seq_len == 6:
            refuse_known(logits, _wrong_logits(reference, ids))
        close(logits, reference(ids)[0], f"the logits for ids of shape {tuple(ids.shape)}")
    try:
        model(torch.zeros(1, 11, dtype=torch.long))
    except Exception:
        return "DecoderOnlyTransformer is right, up to max_seq_len and no further."
    raise AssertionError("11 tokens went through a model with max_seq_len=10. Is there a position?")


def _wrong_logits(r: DecoderOnlyTransformer, ids: Tensor) -> list[tuple[Tensor, str]]:
    """What usually goes wrong in the model, as its logits and in words."""

    def rest(x: Tensor, layers: list[nn.Module]) -> Tensor:
        return r.output_projection(r.norm(nn.Sequential(*layers)(x)))

    x, (first, last) = r.embed(ids), r.layers
    one_head = DecoderOnlyTransformer(20, 12, 24, 2, 10, dropout=0.0).eval()
    one_head.load_state_dict(r.state_dict())
    return [
        (
            rest(r.token_embedding(ids), r.layers),
            "The position embeddings are not added to the token's.",
        ),
        (rest(r.embed(ids, 1), r.layers), "The first token is at position 0, not at 1."),
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
    ]
