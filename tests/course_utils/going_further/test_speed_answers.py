"""Answers to the exercises on speed, wrong and right ones (chapter 07)."""

import numpy as np
import pytest
import torch
from edited import edited

from course_utils.going_further.speed import checks
from course_utils.going_further.speed import roofline as room

pytestmark = pytest.mark.authors

SPLIT = "weight.view(parts, -1, weight.size(1))"
EXPANDED = "x.T.expand(parts, -1, -1)"
BMM = f"torch.bmm(split, {EXPANDED}).view(1, -1)"
SCALE = "weight.abs().amax(dim=1, keepdim=True) / 127"
VALUES = "(weight / scale.where(scale > 0, 1)).round().to(torch.int8)"


def everything(model, tokens=0):
    return sum(p.nbytes for p in model.parameters())


def cached(model, tokens, bytes_each=None):
    size = bytes_each or model.token_embedding.weight.element_size()
    return 2 * model.num_layers * tokens * model.num_heads * model.d_head * size


def right(model, tokens):
    return room.weight_bytes(model) + room.cache_bytes(model, tokens)


def of_trained(model, tokens):
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    return right(model, tokens) - frozen


def in_half(model, tokens):
    return right(model.half(), tokens)


def at_token(model, tokens):
    tables = (model.token_embedding.weight, model.pos_embedding.weight)
    return right(model, tokens) + sum(table[1:tokens].nbytes for table in tables)


WRONG_COUNTS = [
    (lambda m, t: everything(m) + cached(m, t), "only one row is looked up"),
    (lambda m, t: everything(m) - m.token_embedding.weight[1:].nbytes + cached(m, t), "In both"),
    (lambda m, t: everything(m) - m.pos_embedding.weight[1:].nbytes + cached(m, t), "In both"),
    (
        lambda m, t: right(m, t) - 2 * m.token_embedding.weight[0].nbytes,
        "One row of each embedding is read, too",
    ),
    (lambda m, t: room.weight_bytes(m), "keys and values of all positions are read"),
    (everything, "bytes_per_token\\("),
    (lambda m, t: room.weight_bytes(m) + cached(m, t) // 2, "a key and a value"),
    (lambda m, t: room.weight_bytes(m) + cached(m, t) // m.num_layers, "Every layer"),
    (lambda m, t: room.weight_bytes(m) + cached(m, t) // m.num_heads, "Every head"),
    (lambda m, t: room.weight_bytes(m) + cached(m, t) * m.num_heads, "bytes_per_token\\("),
    (lambda m, t: room.weight_bytes(m) + cached(m, 1), "those of one position|of one position"),
    (lambda m, t: right(m, t + 1), "one position more"),
    (lambda m, t: right(m, max(t - 1, 0)), "bytes_per_token\\("),
    (lambda m, t: right(m, t) // m.dtype.itemsize, "In bytes, please"),
    (lambda m, t: right(m, t) // m.dtype.itemsize * 4, "does not always have 4 bytes"),
    (lambda m, t: room.weight_bytes(m) + cached(m, t, 4), "not always 4"),
    (lambda m, t: room.weight_bytes(m) + cached(m, t, 1), "element_size"),
    (lambda m, t: 8 * right(m, t), "bytes_per_token\\("),
    (
        lambda m, t: right(m, t) - sum(p.nbytes for n, p in m.named_parameters() if "bias" in n),
        "biases",
    ),
    (
        lambda m, t: right(m, t) - sum(p.nbytes for n, p in m.named_parameters() if "norm" in n),
        "bytes_per_token\\(",
    ),
    (of_trained, "requires_grad"),
    (at_token, "bytes_per_token\\("),
    (in_half, "changes the model"),
    (lambda m, t: right(m.eval(), t), "its `training` is False now"),
    (lambda m, t: right(m.train(), t), "its `training` is True now"),
    (lambda m, t: right(m.requires_grad_(), t), "requires_grad"),
    (lambda m, t: right(m, min(t, 1000)), "for a model"),
    (lambda m, t: float(right(m, t)), "a float; bytes are an int"),
    (lambda m, t: torch.tensor(right(m, t)), "a Tensor; bytes are an int"),
    (lambda m, t: None, "returns nothing"),
    (lambda m, t: m.nbytes, "raised AttributeError"),
]
EDITS = {
    "in_parts": [
        ((SPLIT, "weight.view(-1, parts, weight.size(1)).transpose(0, 1)"), "another order"),
        ((".view(1, -1)", ".view(parts, -1).T.reshape(1, -1)"), "those of the first part"),
        ((".view(1, -1)", ""), "has shape"),
        ((".view(1, -1)", ".flatten()"), "has shape"),
        ((".view(1, -1)", ".view(-1, 1)"), "has shape"),
        ((SPLIT, "weight.view(parts, weight.size(1), -1).mT"), "x @ weight.T|raised"),
        ((BMM, "x @ weight.T"), "calls torch.bmm 0 times"),
        ((BMM, "torch.cat([x @ part.T for part in split], dim=1)"), "calls torch.bmm 0 times"),
        (
            (BMM, "torch.cat([torch.bmm(p[None], x.T[None]) for p in split], dim=1).view(1, -1)"),
            "calls torch.bmm .* times",
        ),
        ((EXPANDED, "x.T.repeat(parts, 1, 1)"), "copies something"),
        ((EXPANDED, "torch.stack([x.T] * parts)"), "copies something"),
        ((EXPANDED, "x.T.expand(parts, -1, -1).contiguous()"), "copies something"),
        ((EXPANDED, "(x.T * torch.ones(parts, 1, 1, dtype=x.dtype))"), "copies something"),
        ((SPLIT, f"{SPLIT}.clone()"), "copies something"),
        ((SPLIT, "torch.stack(weight.chunk(parts))"), "copies something"),
        ((BMM, "torch.bmm(weight[None], x.T[None]).view(1, -1)"), "a left side of shape"),
        (
            (BMM, "torch.bmm(x.expand(parts, -1, -1), split.mT).view(1, -1)"),
            "x on the left of torch.bmm",
        ),
        ((BMM, "torch.einsum('pij,kj->kpi', split, x).reshape(1, -1)"), "torch.bmm"),
        ((SPLIT, "weight.double().view(parts, -1, weight.size(1))"), "raised|dtype"),
        ((SPLIT, "weight.view(2, -1, weight.size(1))"), "raised"),
        (("split = weight", "parts = min(parts, 4)\n    split = weight"), "a left side of shape"),
        ((BMM, "torch.bmm(split, x.mul_(1.5).T.expand(parts, -1, -1)).view(1, -1)"), "changes"),
    ],
    "quantize": [
        ((f"{VALUES}", "(weight / scale).round().to(torch.int8)"), "zeros must come back as zeros"),
        ((".round()", ""), "cut off"),
        ((".round()", ".floor()"), "rounded down"),
        ((".round()", ".ceil()"), "rounded up"),
        (("weight.abs().amax", "weight.amax"), "take abs\\(\\) first"),
        (("dim=1", "dim=0"), "Each column has a scale"),
        ((SCALE, "weight.abs().max() / 127"), "Each row has its own"),
        ((SCALE, "(weight.abs().max() / 127).expand(len(weight), 1)"), "All rows have one scale"),
        (("127", "128"), "ends at 127"),
        (("127", "255"), "quantize\\("),
        (("127", "126"), "quantize\\("),
        (("127", "63"), "quantize\\("),
        ((", keepdim=True", ""), "quantize\\("),
        (("return values, scale", "return values, scale[:, 0]"), "keeps its dimension"),
        (("return values, scale", "return values, 1 / scale"), "quantize\\("),
        (("return values, scale", "return values, 127 * scale"), "127 times too large"),
        (("return values, scale", "return scale, values"), "quantize\\("),
        (("return values, scale", "return values"), "two tensors"),
        (("return values, scale", "return values * scale"), "two tensors"),
        ((".to(torch.int8)", ""), "8 bits"),
        ((".to(torch.int8)", ".to(torch.uint8)"), "dtype"),
        (("scale.where(scale > 0, 1)", "(scale + 1e-6)"), "quantize\\("),
        (("weight.abs().amax", "weight[:, :256].abs().amax"), "tensor \\(4, 300\\)"),
        ((SCALE, f"({SCALE}).clamp(min=1e-6)"), "quantize\\("),
        (("weight / scale", "weight.div_(scale.max()) / scale"), "changes a tensor"),
        (("scale.where(scale > 0, 1)", "scale.where(scale > 1e-5, 1)"), "quantize\\("),
        ((SCALE, "(weight.amax(1, keepdim=True) - weight.amin(1, keepdim=True)) / 255"), "255"),
        ((SCALE, f"({SCALE}).half()"), "quantize\\("),
    ],
}
KEPT = {}


def kept_by_weight(weight, x, parts):
    """Keeps the weight, too, so that no other has its id."""
    found = KEPT.setdefault((id(weight), parts), (weight, room.in_parts(weight, x, parts)))
    return found[1]


WRONG = [("bytes_per_token", answer, why) for answer, why in WRONG_COUNTS]
WRONG.append(("in_parts", kept_by_weight, "the same weight and another x"))
WRONG += [
    (name, edited(room, name, change), why)
    for name, changes in EDITS.items()
    for change, why in changes
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "answer", "why"), WRONG)
def test_a_wrong_answer_is_told_why(name, answer, why):
    with pytest.raises(AssertionError, match=why):
        getattr(checks, f"check_{name}")(answer)


def part_by_part(model, tokens):
    numbers = 0
    for name, weight in model.state_dict().items():
        numbers += weight.shape[-1] if "embedding" in name else weight.numel()
    for layer in model.layers:
        numbers += 2 * tokens * layer.attention.W_k.weight.shape[0]
    return numbers * model.output_projection.bias.itemsize


def by_modules(model, tokens):
    _, past = model(torch.zeros(1, 1, dtype=torch.long), use_cache=True)
    found = 0
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            rows = 1 if isinstance(module, torch.nn.Embedding) else len(weight)
            found += weight.nbytes // len(weight) * rows
    of_one = 2 * model.token_embedding.embedding_dim * model.dtype.itemsize
    return found + len(model.layers) * tokens * of_one


def strided(weight, x, parts):
    (rows, columns), first = weight.shape, weight.storage_offset()
    size = (parts, rows // parts, columns)
    split = weight.as_strided(size, (rows // parts * columns, columns, 1), first)
    return torch.bmm(split, x.view(1, columns, 1).expand(parts, columns, 1)).reshape(1, rows)


def unflattened(weight, x, parts):
    split = weight.unflatten(0, (parts, weight.shape[0] // parts))
    column = x.squeeze(0)[None, :, None].expand(parts, -1, -1)
    return split.bmm(column).flatten()[None]


def multiplied(weight, x, parts):
    split = weight.reshape(parts, len(weight) // parts, weight.shape[1])
    return torch.matmul(split, x.mT.expand(parts, -1, -1)).view(1, len(weight))


def by_rows(weight):
    values, scales = torch.zeros_like(weight, dtype=torch.int8), []
    for row, value in zip(weight, values, strict=True):
        largest = max(abs(x) for x in row.tolist())
        scales.append([largest / 127])
        if largest:
            value.copy_((row * (127 / largest)).round())
    return values, torch.tensor(scales, dtype=weight.dtype)


def half_away_from_zero(weight):
    scale = torch.linalg.vector_norm(weight, float("inf"), dim=1, keepdim=True) / 127
    steps = weight / torch.where(scale == 0, 1, scale)
    return (steps.sign() * (steps.abs() + 0.5).floor()).char(), scale


def with_a_floor(weight):
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return torch.clamp((weight / scale).round(), -128, 127).to(torch.int8), scale


def one_for_zeros(weight):
    largest = torch.maximum(weight.amax(1), -weight.amin(1))[:, None]
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return torch.round(weight.double() / scale.double()).to(torch.int8), scale.double()


RIGHT = {
    "bytes_per_token": [right, part_by_part, by_modules, lambda m, t: np.int64(right(m, t))],
    "in_parts": [strided, unflattened, multiplied],
    "quantize": [by_rows, half_away_from_zero, with_a_floor, one_for_zeros],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_in_other_words(name):
    for answer in RIGHT[name]:
        assert "right" in getattr(checks, f"check_{name}")(answer)
