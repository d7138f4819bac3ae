"""The checks of real weights (chapter 12): what they refuse, and say, and what they accept."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from course_utils.going_further import gpt2
from course_utils.going_further.gpt2 import bpe, checks

pytestmark = pytest.mark.authors


def only_first(pieces, pair):
    for i in range(len(pieces) - 1):
        if tuple(pieces[i : i + 2]) == pair:
            return [*pieces[:i], "".join(pair), *pieces[i + 2 :]]
    return list(pieces)


def only_last(pieces, pair):
    for i in reversed(range(len(pieces) - 1)):
        if tuple(pieces[i : i + 2]) == pair:
            return [*pieces[:i], "".join(pair), *pieces[i + 2 :]]
    return list(pieces)


def from_the_right(pieces, pair):
    turned = pair[1][::-1], pair[0][::-1]
    return [p[::-1] for p in bpe.merge_pair([p[::-1] for p in pieces[::-1]], turned)][::-1]


def by_letters(pieces, pair):
    return "".join(pieces).replace("".join(pair), "\0" + "".join(pair) + "\0").split("\0")


def in_place(pieces, pair):
    pieces[:] = bpe.merge_pair(pieces, pair)
    return pieces


def popped(pieces, pair):
    found = []
    while pieces:
        both = len(pieces) > 1 and (pieces[0], pieces[1]) == pair
        found.append(pieces.pop(0) + (pieces.pop(0) if both else ""))
    return found


def not_skipped(pieces, pair):
    found = []
    for i, piece in enumerate(pieces):
        found.append("".join(pair) if tuple(pieces[i : i + 2]) == pair else piece)
    return found


def used_twice(pieces, pair):
    """Skips the second of a pair, unless that begins a pair itself."""
    found, skip = [], False
    for i, piece in enumerate(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            found.append("".join(pair))
            skip = True
        elif skip:
            skip = False
        else:
            found.append(piece)
    return found


def either_order(pieces, pair):
    return bpe.merge_pair(bpe.merge_pair(pieces, pair), pair[::-1])


def first_piece_only(pieces, pair):
    found, i = [], 0
    while i < len(pieces):
        both = pieces[i] == pair[0] and i + 1 < len(pieces)
        found.append("".join(pieces[i : i + 1 + both]))
        i += 1 + both
    return found


def last_lost(pieces, pair):
    return bpe.merge_pair(pieces, pair)[:-1] if tuple(pieces[-2:]) == pair else list(pieces)


def without_the_last(pieces, pair):
    found, i = [], 0
    while i < len(pieces) - 1:
        both = tuple(pieces[i : i + 2]) == pair
        found.append("".join(pieces[i : i + 1 + both]))
        i += 1 + both
    return found


def over_the_end(pieces, pair):
    found, i = [], 0
    while i < len(pieces):
        both = (pieces[i], pieces[i + 1]) == pair
        found.append("".join(pieces[i : i + 1 + both]))
        i += 1 + both
    return found


def by_sum(pieces, pair):
    """Compares what two pieces make together."""
    found, i = [], 0
    while i < len(pieces):
        both = "".join(pieces[i : i + 2]) == "".join(pair) and len(pieces) > i + 1
        found.append("".join(pieces[i : i + 1 + both]))
        i += 1 + both
    return found


def as_one_string(pieces, pair):
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split()


def by_pattern(pieces, pair):
    """Sennrich's own, without `re.escape`."""
    pattern = rf"(?<!\S){pair[0]} {pair[1]}(?!\S)"
    return re.sub(pattern, lambda _: "".join(pair), " ".join(pieces)).split()


def into_a_pattern(pieces, pair):
    """A backslash in a piece is taken for one of the pattern."""
    pattern = rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)"
    return re.sub(pattern, "".join(pair), " ".join(pieces)).split()


def once_each(pieces, pair):
    return list(dict.fromkeys(bpe.merge_pair(pieces, pair)))


def with_a_space(pieces, pair):
    return [" ".join(pair) if p == "".join(pair) else p for p in bpe.merge_pair(pieces, pair)]


MERGES = {
    "only the first": (only_first, "Every occurrence"),
    "only the last": (only_last, "Every occurrence"),
    "from the right": (from_the_right, "left to right"),
    "letters": (by_letters, "each as a whole"),
    "what they make together": (by_sum, "each as a whole"),
    "in place": (in_place, "changes the list that came in"),
    "popped": (popped, "changes the list that came in"),
    "not skipped": (not_skipped, "go on after both"),
    "used twice": (used_twice, "no piece is used twice"),
    "either order": (either_order, "order counts"),
    "the first piece only": (first_piece_only, "Both pieces"),
    "the end": (last_lost, "expected"),
    "without the last": (without_the_last, "last piece"),
    "over the end": (over_the_end, "IndexError at"),
    "as one string": (as_one_string, "each as a whole"),
    "a pattern": (by_pattern, "expected|raised"),
    "into a pattern": (into_a_pattern, "raised|expected"),
    "once each": (once_each, "expected"),
    "with a space": (with_a_space, "expected"),
    "a string": (lambda p, pair: "".join(p), "list of pieces"),
    "a generator": (lambda p, pair: (x for x in bpe.merge_pair(p, pair)), "list of pieces"),
    "nothing": (lambda p, pair: None, "list of pieces"),
    "unchanged": (lambda p, pair: list(p), "Nothing is merged"),
    "the same list": (
        lambda p, pair: bpe.merge_pair(p, pair) if pair in zip(p, p[1:], strict=False) else p,
        "the very list that came in",
    ),
    "the first hundred": (lambda p, pair: bpe.merge_pair(p[:100], pair) + p[100:], "expected"),
    "pairs": (lambda p, pair: [tuple(x) for x in bpe.merge_pair(p, pair)], "expected"),
}


def c_attn(cut):
    return lambda w, b: list(zip(cut(w), b.chunk(3), strict=True))


def biases(cut):
    return lambda w, b: list(zip(w.T.chunk(3), cut(b), strict=True))


def for_768(weight, bias):
    return list(zip(weight.T.split(768), bias.split(768), strict=True))


SPLITS = {
    "not turned": (c_attn(lambda w: w.chunk(3, 1)), "transpose it"),
    "only the first turned": (
        c_attn(lambda w: [m.T if i == 0 else m for i, m in enumerate(w.chunk(3, 1))]),
        "W_k as .in, out.",
    ),
    "turned twice": (c_attn(lambda w: [m.T for m in w.T.chunk(3)]), "transpose it"),
    "k first": (
        c_attn(lambda w: [w.T.chunk(3)[i] for i in (1, 0, 2)]),
        "gives the weight of W_k as the weight of W_q",
    ),
    "v before k": (
        c_attn(lambda w: [w.T.chunk(3)[i] for i in (0, 2, 1)]),
        "gives the weight of W_v as the weight of W_k",
    ),
    "three times q": (
        c_attn(lambda w: [w.T.chunk(3)[0]] * 3),
        "gives the weight of W_q as the weight of W_k",
    ),
    "k, not turned": (
        c_attn(lambda w: [w.chunk(3, 1)[i] for i in (1, 0, 2)]),
        "transpose|W_k",
    ),
    "third columns": (c_attn(lambda w: [w.T[i::3] for i in range(3)]), "a mixture"),
    "third columns, not turned": (c_attn(lambda w: [w[:, i::3] for i in range(3)]), "a mixture"),
    "reshaped": (c_attn(lambda w: w.reshape(3, len(w), len(w)).unbind()), "a mixture"),
    "reshaped and turned": (
        c_attn(lambda w: [m.T for m in w.reshape(3, len(w), len(w))]),
        "a mixture",
    ),
    "whole": (c_attn(lambda w: [w.T] * 3), "has shape"),
    "cut along the rows": (c_attn(lambda w: w.chunk(3, 0)), "has shape|raised"),
    "two": (lambda w, b: gpt2.split_c_attn(w, b)[:2], "three pairs"),
    "flat": (lambda w, b: [x for p in gpt2.split_c_attn(w, b) for x in p], "three pairs"),
    "a generator": (lambda w, b: zip(w.T.chunk(3), b.chunk(3), strict=True), "three pairs"),
    "a dict": (lambda w, b: dict(zip("qkv", gpt2.split_c_attn(w, b), strict=True)), "three pairs"),
    "weights only": (lambda w, b: [w for w, _ in gpt2.split_c_attn(w, b)], "pair"),
    "bias first": (
        lambda w, b: [(c, m) for m, c in gpt2.split_c_attn(w, b)],
        "weight, bias, in each",
    ),
    "bias whole": (biases(lambda b: [b] * 3), "bias.* of W_q.* has shape|has shape.*bias of W_q"),
    "same bias": (
        biases(lambda b: [b[: len(b) // 3]] * 3),
        "gives the bias of W_q as the bias of W_k",
    ),
    "biases the other way round": (
        biases(lambda b: b.chunk(3)[::-1]),
        "gives the bias of W_v as the bias of W_q",
    ),
    "third biases": (biases(lambda b: [b[i::3] for i in range(3)]), "bias of W_q"),
    "bias as a row": (biases(lambda b: b[None].chunk(3, 1)), "has shape"),
    "no bias": (biases(lambda b: [torch.zeros_like(b[: len(b) // 3])] * 3), "bias of W_q"),
    "for 768": (for_768, "raised|has shape|three pairs"),
    "float32": (
        lambda w, b: [(m.float(), c) for m, c in gpt2.split_c_attn(w, b)],
        "has dtype torch.float32",
    ),
    "16 bits": (
        lambda w, b: [(m.half().to(m.dtype), c) for m, c in gpt2.split_c_attn(w, b)],
        "expected",
    ),
    "scaled": (
        lambda w, b: [(m * (1 + 1e-5), c) for m, c in gpt2.split_c_attn(w, b)],
        "expected",
    ),
    "none": (lambda w, b: None, "three pairs"),
}


def inner(x):
    return (2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)


def tanh_of(u):
    return lambda x: 0.5 * x * (1 + torch.tanh(u(x)))


ROOT = (2 / math.pi) ** 0.5


def by_exponentials(x):
    up, down = inner(x).exp(), (-inner(x)).exp()
    return 0.5 * x * (1 + (up - down) / (up + down))


def halved_in_place(x):
    return x.mul_(0.5).mul_(2) * 0 + gpt2.gelu_new(x.mul_(0.5))


GELUS = {
    "erf": (F.gelu, "with erf"),
    "relu": (torch.relu, "ReLU"),
    "silu": (F.silu, "SiLU"),
    "sigmoid": (lambda x: x * torch.sigmoid(1.702 * x), "with a sigmoid"),
    "tanh": (torch.tanh, "expected"),
    "no half": (lambda x: x * (1 + torch.tanh(inner(x))), "begins with 0.5"),
    "no one": (lambda x: 0.5 * x * torch.tanh(inner(x)), "1 is added"),
    "no x": (lambda x: 0.5 * (1 + torch.tanh(inner(x))), "multiplied by x"),
    "no tanh": (lambda x: 0.5 * x * (1 + inner(x)), "tanh"),
    "no cube": (tanh_of(lambda x: ROOT * (x + 0.044715 * x)), "third power"),
    "square": (tanh_of(lambda x: ROOT * (x + 0.044715 * x**2)), "third power"),
    "times 3": (tanh_of(lambda x: ROOT * (x + 0.044715 * x * 3)), "third power"),
    "no root": (tanh_of(lambda x: 2 / math.pi * (x + 0.044715 * x**3)), "root|sqrt"),
    "root of 2 only": (tanh_of(lambda x: 2**0.5 / math.pi * (x + 0.044715 * x**3)), "sqrt"),
    "root of 2 pi": (tanh_of(lambda x: (2 * math.pi) ** 0.5 * (x + 0.044715 * x**3)), "sqrt"),
    "root of pi / 2": (tanh_of(lambda x: (math.pi / 2) ** 0.5 * (x + 0.044715 * x**3)), "sqrt"),
    "bracket too short": (tanh_of(lambda x: ROOT * x + 0.044715 * x**3), "both"),
    "half of the tanh": (lambda x: x * (1 + 0.5 * torch.tanh(inner(x))), "expected"),
    "minus": (tanh_of(lambda x: ROOT * (x - 0.044715 * x**3)), "expected"),
    "a digit too few": (tanh_of(lambda x: ROOT * (x + 0.04471 * x**3)), "each constant"),
    "a digit too many": (tanh_of(lambda x: ROOT * (x + 0.0447715 * x**3)), "each constant"),
    "rounded": (tanh_of(lambda x: 0.7978845 * (x + 0.044715 * x**3)), "each constant"),
    "a root in float32": (
        tanh_of(lambda x: torch.sqrt(torch.tensor(2 / math.pi)) * (x + 0.044715 * x**3)),
        "each constant|float32",
    ),
    "in float32": (lambda x: gpt2.gelu_new(x.float()).to(x.dtype), "float32"),
    "to float32": (lambda x: gpt2.gelu_new(x).float(), "has dtype torch.float32"),
    "in place": (lambda x: x.copy_(gpt2.gelu_new(x)), "changes a tensor that came in"),
    "halved in place": (halved_in_place, "changes a tensor that came in|changed"),
    "exponentials": (by_exponentials, "holds NaN.*overflow"),
    "no gradient": (lambda x: gpt2.gelu_new(x.detach()), "no gradient"),
    "half a gradient": (lambda x: x * (gpt2.gelu_new(x) / x.where(x != 0, 1)).detach(), "gradient"),
    "flattened": (lambda x: gpt2.gelu_new(x.flatten()), "has shape"),
    "viewed": (lambda x: gpt2.gelu_new(x.view(-1)).view(x.shape), "reshape"),
    "clamped": (lambda x: gpt2.gelu_new(x.clamp(-8, 8)), "expected"),
    "numbers": (
        lambda x: torch.tensor([0.5 * v * (1 + math.tanh(inner(v))) for v in x.flatten().tolist()]),
        "shape|dtype|no gradient",
    ),
    "row by row": (lambda x: torch.stack([gpt2.gelu_new(row) for row in x]), "raised TypeError"),
    "16 bits to 32": (
        lambda x: gpt2.gelu_new(x if x.dtype == torch.float64 else x.float()),
        "has dtype torch.float32, expected torch.float16",
    ),
    "none": (lambda x: None, "returns nothing"),
}


def altered(change):
    return lambda t, n: change(gpt2.translate(t, n))


def renamed(old, new):
    return altered(lambda s: {n.replace(old, new): t for n, t in s.items()})


def with_tensors(names, change):
    return altered(lambda s: {n: change(t) if names in n else t for n, t in s.items()})


def swapped(a, b):
    def change(state):
        names = {n: n.replace(a, "?").replace(b, a).replace("?", b) for n in state}
        return {n: state[names[n]] for n in state}

    return altered(change)


def turn(t):
    return t.T if t.dim() == 2 else t


def without(name):
    return altered(lambda s: {n: t for n, t in s.items() if name not in n})


def popping(tensors, num_layers):
    head = tensors.pop("lm_head.weight", tensors["wte.weight"])
    return gpt2.translate(tensors, num_layers) | {"output_projection.weight": head}


def turning_in_place(tensors, num_layers):
    for name, tensor in tensors.items():
        if name.endswith("c_fc.weight"):
            tensor.t_()
    state = gpt2.translate(tensors, num_layers)
    return {n: t.T if n.endswith("fc1.weight") else t for n, t in state.items()}


def into_what_came(tensors, num_layers):
    tensors.update(gpt2.translate(tensors, num_layers))
    return tensors


def by_order(tensors, num_layers):
    """Takes for granted in which order the names come."""
    names = gpt2.translate(dict(sorted(tensors.items())), num_layers)
    return dict(zip(names, gpt2.translate(tensors, num_layers).values(), strict=True)) | {
        "norm.weight": [t for n, t in tensors.items() if t.dim() == 1][-1]
    }


def ten_layers(tensors, num_layers):
    return gpt2.translate(tensors, min(num_layers, 10))


def one_digit(tensors, num_layers):
    found = {}
    for name, tensor in gpt2.translate(tensors, num_layers).items():
        found[re.sub(r"layers\.(\d)\d*", r"layers.\1", name)] = tensor
    return found


def fc_by_shape(tensors, num_layers):
    """Turns fc1 and fc2 only if they are not square."""
    state = gpt2.translate(tensors, num_layers)
    for name, tensor in state.items():
        if "fc" in name and tensor.dim() == 2 and tensor.size(0) == tensor.size(1):
            state[name] = tensor.T
    return state


def tied(tensors, num_layers):
    return gpt2.translate({n: t for n, t in tensors.items() if n != "lm_head.weight"}, num_layers)


def always_a_head(tensors, num_layers):
    state = gpt2.translate(tensors, num_layers)
    state["output_projection.weight"] = tensors["lm_head.weight"]
    return state


def by_or(tensors, num_layers):
    state = gpt2.translate(tensors, num_layers)
    state["output_projection.weight"] = tensors.get("lm_head.weight") or tensors["wte.weight"]
    return state


def first_layer_everywhere(tensors, num_layers):
    state = gpt2.translate(tensors, num_layers)
    return {n: state[re.sub(r"layers\.\d+", "layers.0", n)] for n in state}


def from_one(tensors, num_layers):
    state = gpt2.translate(tensors, num_layers)
    return {
        re.sub(r"layers\.(\d+)", lambda m: f"layers.{int(m[1]) + 1}", n): t
        for n, t in state.items()
    }


TRANSLATIONS = {
    "not turned": (with_tensors("W_o.weight", turn), "transpose it"),
    "nothing turned": (with_tensors("layers", turn), "transpose it"),
    "turned twice": (with_tensors("W_q.weight", turn), "once: `split_c_attn`"),
    "fc not turned": (with_tensors("fc1.weight", turn), "transpose it"),
    "square fc not turned": (fc_by_shape, "transpose it"),
    "embedding turned": (with_tensors("token_embedding", turn), "is turned|embedding"),
    "head turned": (with_tensors("output_projection", turn), "is turned|projection"),
    "positions turned": (with_tensors("pos_embedding", turn), "is turned|embedding"),
    "no head": (without("output_projection"), "missing: output_projection.weight"),
    "no biases": (without("bias"), "missing: "),
    "no bias of the last norm": (without("norm.bias"), "missing: "),
    "biases of 0": (with_tensors("bias", torch.zeros_like), "bias"),
    "gains of 1": (with_tensors("norm1.weight", torch.ones_like), "norm1.weight"),
    "always tied": (tied, "lm_head.weight .use it."),
    "always a head": (always_a_head, "KeyError"),
    "by or": (by_or, "raised RuntimeError at"),
    "a bias of the head": (
        altered(lambda s: s | {"output_projection.bias": s["output_projection.weight"][:, 0]}),
        "output_projection.bias",
    ),
    "GPT-2's names": (renamed("feed_forward.fc1", "mlp.c_fc"), "mlp.c_fc"),
    "without a number": (renamed("layers.0.", "layers."), "missing: layers.0."),
    "norms swapped": (swapped("norm1", "norm2"), "belongs to layers.0.norm2"),
    "keys for values": (swapped("W_k", "W_v"), "belongs to layers.0.attention.W_v"),
    "embeddings swapped": (swapped("token_embedding", "pos_embedding"), "belongs to"),
    "bias of fc2 in W_o": (
        altered(lambda s: s | {"layers.0.attention.W_o.bias": s["layers.0.feed_forward.fc2.bias"]}),
        "belongs to layers.0.feed_forward.fc2.bias",
    ),
    "one digit": (one_digit, "missing: "),
    "ten layers": (ten_layers, "layers.10."),
    "twelve layers": (lambda t, n: gpt2.translate(t, min(n, 12)), "layers.12."),
    "from one": (from_one, "missing: layers.0."),
    "one layer": (lambda t, n: gpt2.translate(t, 1), "missing"),
    "the first layer everywhere": (first_layer_everywhere, "belongs to layers.0."),
    "a list": (altered(list), "a dict"),
    "nothing": (lambda t, n: None, "a dict"),
    "noise": (with_tensors("pos_embedding", lambda t: t + 1), "pos_embedding.weight is"),
    "a little noise": (with_tensors("fc2.weight", lambda t: t * (1 + 1e-5)), "fc2.weight is"),
    "float32": (with_tensors("weight", lambda t: t.float()), "has dtype torch.float32"),
    "16 bits": (with_tensors("weight", lambda t: t.half().to(t.dtype)), "is "),
    "popping": (popping, "dict that came in was changed"),
    "into what came": (into_what_came, "dict that came in was changed"),
    "turned in place": (turning_in_place, "c_fc.weight that came in was changed"),
    "by order": (by_order, "expected|belongs"),
    "still GPT-2's": (lambda t, n: t | gpt2.translate(t, n), "not names of the course's model"),
    "numbers": (altered(lambda s: {n: t.tolist() for n, t in s.items()}), "list"),
}


def centred(w):
    return w - w.mean(1, keepdim=True)


def over_d(w, b, s):
    return (w @ s + b)[:, None] / w.size(1)


def in_place_head(w, b, g, s):
    constant = over_d(w, b, s)
    w *= g
    return centred(w) + constant


def with_ones(w, b, g, s):
    ones = torch.ones(w.size(1), dtype=w.dtype)
    scaled = w * g
    return scaled - torch.outer(scaled @ ones, ones) / len(ones) + over_d(w, b, s)


def d_is(number):
    return lambda w, b, g, s: centred(w * g) + (w @ s + b)[:, None] / number(w)


HEADS = {
    "weight only": (lambda w, b, g, s: w * g, "bias is not in it"),
    "as it was": (lambda w, b, g, s: w.clone(), "expected"),
    "no constant": (lambda w, b, g, s: centred(w * g), "constant.* is missing"),
    "not centred": (lambda w, b, g, s: w * g + over_d(w, b, s), "Centre"),
    "not divided": (lambda w, b, g, s: centred(w * g) + (w @ s + b)[:, None], "D times"),
    "no shift": (lambda w, b, g, s: centred(w * g) + b[:, None] / w.size(1), "shift is lost"),
    "no bias": (lambda w, b, g, s: centred(w * g) + (w @ s)[:, None] / w.size(1), "bias is lost"),
    "no gain": (lambda w, b, g, s: centred(w) + over_d(w, b, s), "gain is lost"),
    "centred first": (lambda w, b, g, s: centred(w) * g + over_d(w, b, s), "before the gain"),
    "scaled shift": (
        lambda w, b, g, s: centred(w * g) + over_d(w * g, b, s),
        "not the scaled one",
    ),
    "centred shift": (lambda w, b, g, s: centred(w * g) + over_d(centred(w), b, s), "expected"),
    "means of columns": (
        lambda w, b, g, s: w * g - (w * g).mean(0) + over_d(w, b, s),
        "that of a row",
    ),
    "mean of all": (lambda w, b, g, s: w * g - (w * g).mean() + over_d(w, b, s), "that of a row"),
    "sum for mean": (
        lambda w, b, g, s: w * g - (w * g).sum(1, keepdim=True) + over_d(w, b, s),
        "expected",
    ),
    "over V": (d_is(len), "divided by V|expected"),
    "over the root": (d_is(lambda w: w.size(1) ** 0.5), "expected"),
    "subtracted": (lambda w, b, g, s: centred(w * g) - over_d(w, b, s), "added|expected"),
    "mean added": (
        lambda w, b, g, s: w * g + (w * g).mean(1, keepdim=True) + over_d(w, b, s),
        "expected",
    ),
    "gain on the constant": (lambda w, b, g, s: centred(w * g) + over_d(w, b, s) * g, "expected"),
    "gain and shift exchanged": (lambda w, b, g, s: gpt2.fold_head(w, b, s, g), "exchanged"),
    "scaled and centred constant": (
        lambda w, b, g, s: centred(gpt2.fold_head(w, b, g, s)),
        "const",
    ),
    "divided by the gain": (
        lambda w, b, g, s: centred(w * g) + over_d(w * g, b, s / g),
        "holds NaN",
    ),
    "columns": (lambda w, b, g, s: gpt2.fold_head(w, b, g, s).T, "has shape"),
    "in place": (in_place_head, "changes a tensor that came in"),
    "float32": (
        lambda w, b, g, s: gpt2.fold_head(w.float(), b.float(), g.float(), s.float()).to(w.dtype),
        "float32|expected",
    ),
    "to float32": (lambda w, b, g, s: gpt2.fold_head(w, b, g, s).float(), "has dtype"),
    "with the bias": (lambda w, b, g, s: (gpt2.fold_head(w, b, g, s), b), "a tuple"),
    "none": (lambda w, b, g, s: None, "returns nothing"),
}

CHECKS = {
    "merge_pair": (checks.check_merge_pair, MERGES),
    "split_c_attn": (checks.check_split_c_attn, SPLITS),
    "gelu_new": (checks.check_gelu_new, GELUS),
    "translate": (checks.check_translate, TRANSLATIONS),
    "fold_head": (checks.check_fold_head, HEADS),
}
WRONG = [(name, how) for name, (_, answers) in CHECKS.items() for how in answers]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "how"), WRONG)
def test_a_wrong_answer_is_told_why(name, how):
    check, answers = CHECKS[name]
    wrong, told = answers[how]
    with pytest.raises(AssertionError, match=told):
        check(wrong)


def scan(pieces, pair):
    found, rest = [], list(pieces)
    while rest:
        if len(rest) > 1 and (rest[0], rest[1]) == pair:
            found.append(rest.pop(0) + rest.pop(0))
        else:
            found.append(rest.pop(0))
    return found


def recursive(pieces, pair):
    if len(pieces) < 2:
        return tuple(pieces)
    first, second, *rest = pieces
    if (first, second) == tuple(pair):
        return first + second, *recursive(rest, pair)
    return first, *recursive([second, *rest], pair)


def pattern(pieces, pair):
    """Sennrich's own."""
    found = rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)"
    return re.sub(found, lambda _: "".join(pair), " ".join(pieces)).split()


def by_unbind(weight, bias):
    stacked = weight.reshape(len(weight), 3, -1).permute(1, 2, 0)
    return tuple([w, b] for w, b in zip(stacked.unbind(), bias.reshape(3, -1), strict=True))


def by_places(weight, bias):
    d = bias.numel() // 3
    return [
        (weight[:, i * d : (i + 1) * d].t().contiguous(), bias[i * d : (i + 1) * d].clone())
        for i in range(3)
    ]


def by_erasing(tensors, num_layers):
    """Goes through what there is, name by name."""
    found, names = {}, {"wte": "token_embedding", "wpe": "pos_embedding", "ln_f": "norm"}
    for name, tensor in tensors.items():
        if name == "lm_head.weight":
            continue
        whole, kind = name.rsplit(".", 1)
        if not whole.startswith("h."):
            found[f"{names[whole]}.{kind}"] = tensor.clone()
            continue
        _, i, part = whole.split(".", 2)
        if part == "attn.c_attn":
            for x, piece in zip("qkv", tensor.chunk(3, dim=-1), strict=True):
                found[f"layers.{i}.attention.W_{x}.{kind}"] = piece.t()
        else:
            found[f"layers.{i}.{gpt2.BLOCK[part]}.{kind}"] = tensor.t().contiguous()
    head = tensors["lm_head.weight"] if "lm_head.weight" in tensors else tensors["wte.weight"]
    return found | {"output_projection.weight": head}


def long_way(weight, bias, gain, shift):
    """Solves for the head that does it."""
    d = weight.size(1)
    basis = torch.eye(d, dtype=torch.float64, device=weight.device) - 1 / d
    weight, bias, gain, shift = (x.double() for x in (weight, bias, gain, shift))
    outputs = torch.cat([basis @ (weight * gain).T, (weight @ shift + bias)[None]])
    inputs = torch.cat([basis, torch.ones(1, d, dtype=basis.dtype, device=basis.device)])
    return torch.linalg.pinv(inputs) @ outputs


def row_by_row(weight, bias, gain, shift):
    rows = []
    for row, b in zip(weight, bias, strict=True):
        scaled = torch.mul(row, gain)
        rows.append(scaled - scaled.sum() / len(gain) + (torch.dot(row, shift) + b) / len(gain))
    return torch.stack(rows)


def by_the_centring_matrix(weight, bias, gain, shift):
    d = weight.size(1)
    centre = torch.eye(d, dtype=weight.dtype, device=weight.device) - 1 / d
    constant = torch.einsum("vd,d->v", weight, shift) + bias
    return weight @ torch.diag(gain) @ centre + constant.unsqueeze(1).expand(-1, d) / d


RIGHT = [
    ("merge_pair", scan),
    ("merge_pair", recursive),
    ("merge_pair", pattern),
    ("split_c_attn", lambda w, b: tuple(zip(w.T.contiguous().chunk(3), b.chunk(3), strict=True))),
    ("split_c_attn", by_unbind),
    ("split_c_attn", by_places),
    ("gelu_new", lambda x: F.gelu(x, approximate="tanh")),
    ("gelu_new", lambda x: x * torch.sigmoid(2 * inner(x))),
    ("gelu_new", lambda x: gpt2.gelu_new(x.double()).to(x.dtype)),
    ("gelu_new", lambda x: x / 2 + x / 2 * torch.tanh(ROOT * x * (1 + 0.044715 * x * x))),
    ("translate", by_erasing),
    ("translate", lambda t, n: {k: x.clone() for k, x in gpt2.translate(t, n).items()}),
    ("fold_head", lambda w, b, g, s: long_way(w, b, g, s).T.to(w.dtype)),
    ("fold_head", row_by_row),
    ("fold_head", by_the_centring_matrix),
    ("fold_head", with_ones),  # makes a tensor on the CPU: the card names no device
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_pass_when_written_another_way(name, answer):
    assert "right" in CHECKS[name][0](answer)


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_not_written_yet_stays_not_written(name):
    def stub(*_):
        raise NotImplementedError

    with pytest.raises(NotImplementedError):
        CHECKS[name][0](stub)
