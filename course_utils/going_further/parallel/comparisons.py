"""Is a model in parts the whole model? What every rank finds out, by job (chapter 11).

A job takes the rank's `Group`: all but `engine` run among threads too (`in_threads`). Every rank
also holds the whole model to compare with, which elsewhere would defeat the purpose.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ...stories import START, Tokenizer
from ...transformer import load_model
from .groups import Group
from .tensor_parallel import cross_entropy, cut, generate, parallelize, split_layer, with_engine

NEW = 12


def prompt() -> Tensor:
    """The beginning of a story, (1, 10)."""
    return torch.tensor([Tokenizer().encode(f"{START} This is a story about Mia and Tom.")])


def batch(rows: int = 2, seq_len: int = 24, vocab_size: int = 252) -> Tensor:
    """The same random ids (B, T) on every rank."""
    return torch.randint(vocab_size, (rows, seq_len), generator=torch.Generator().manual_seed(0))


def error(found: Tensor, expected: Tensor) -> float:
    return (found - expected).abs().max().item()


def differs(tensor: Tensor, group: Group) -> float:
    """By how much the ranks' copies of a tensor differ; 0 if they are the same to the bit."""
    highest, lowest = group.all_reduce(tensor, "max"), group.all_reduce(tensor, "min")
    return error(highest, lowest)


def by_one(model: nn.Module, ids: Tensor, first: int) -> Tensor:
    """Logits with a cache: the first tokens at once, then one at a time."""
    logits, cache = [], None
    for new in ids.split([first] + [1] * (ids.size(1) - first), dim=1):
        found, cache = model(new, cache, use_cache=True)
        logits.append(found)
    return torch.cat(logits, dim=1)


@torch.no_grad()
def logits(group: Group) -> dict[str, Any]:
    """Logits, greedy ids, cache and weights of the course's model against the whole model's."""
    whole = load_model(device="cpu", dtype=torch.float64)
    part = parallelize(whole, group)
    ids, start = batch(), prompt()
    expected = cut(whole(ids)[0], group, dim=2)
    story = generate(part, start, NEW, group)
    _, cache = part(start, use_cache=True)
    hidden = part.layers[0](part.embed(ids))
    cached = [error(by_one(part, ids[:, :8], first), expected[:, :8]) for first in (1, 4, 7)]
    return {
        "logits": error(part(ids)[0], expected),
        "cached logits": max(cached),
        "ids": story[0].tolist(),
        "ids alone": whole.generate(start, NEW, temperature=0)[0].tolist(),
        "streams differ by": differs(hidden, group),
        "cache bytes": cache.nbytes,
        "weights bytes": sum(parameter.nbytes for parameter in part.parameters()),
    }


def train_loss(model: nn.Module, ids: Tensor, group: Group | None = None) -> Tensor:
    """Loss of the next tokens; with a group, from this rank's logits."""
    found = model(ids[:, :-1])[0]
    if group is None:
        return F.cross_entropy(found.flatten(0, 1), ids[:, 1:].flatten())
    return cross_entropy(found, ids[:, 1:], group)


def whole_gradients(part: nn.Module, whole: nn.Module, group: Group) -> dict[str, Tensor]:
    """The whole model's gradients, cut as the parameters of `part` are."""
    expected = {name: parameter.grad for name, parameter in whole.named_parameters()}
    for i in range(whole.num_layers):
        front = f"layers.{i}."
        layer = {k.removeprefix(front): v for k, v in expected.items() if k.startswith(front)}
        mine = split_layer(layer, group, whole.num_heads)
        expected |= {front + name: gradient for name, gradient in mine.items()}
    for name in ("output_projection.weight", "output_projection.bias"):
        expected[name] = cut(expected[name], group, dim=0)
    assert expected.keys() == dict(part.named_parameters()).keys()
    return expected


def gradients(group: Group) -> dict[str, Any]:
    """Loss and every parameter's gradient against the whole model's."""
    whole = load_model(device="cpu", dtype=torch.float64)
    part, ids = parallelize(whole, group), batch()
    loss, expected = train_loss(part, ids, group), train_loss(whole, ids)
    loss.backward()
    expected.backward()
    wanted = whole_gradients(part, whole, group)
    found = {name: error(p.grad, wanted[name]) for name, p in part.named_parameters()}
    return {"loss": error(loss, expected), "gradients": max(found.values()), "by name": found}


def dropout(group: Group) -> dict[str, Any]:
    """What dropout does to loss and residual stream, with one seed and with one per rank."""
    whole = load_model(device="cpu", dtype=torch.float64)
    for module in whole.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    part, ids = parallelize(whole.train(), group), batch()
    torch.manual_seed(0)
    expected = train_loss(whole, ids)
    found, streams = {}, []
    part.norm.register_forward_hook(lambda _, x, y: streams.append(y.detach()))
    for name, seed in (("one seed", 0), ("own seeds", group.rank)):
        torch.manual_seed(seed)
        loss = train_loss(part, ids, group)
        found[name] = {
            "loss, against the whole model's": error(loss, expected),
            "loss, between ranks": differs(loss, group),
            "x, between ranks": differs(streams[-1], group),
        }
    return found


def profiled(task: Callable[[], object]) -> list[list]:
    """Every all-reduce that gloo was asked for, as the profiler sees it: [shape, how often]."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        task()
    events = seen.profiler.kineto_results.events()  # quicker than seen.events()
    shapes = [tuple(e.shapes()[0]) for e in events if e.name() == "gloo:all_reduce"]
    return [[list(shape), times] for shape, times in sorted(Counter(shapes).items())]


def engine(group: Group) -> dict[str, Any]:
    """PyTorch's own tensor parallelism against the whole model, and the all-reduces of each."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import loss_parallel

    mesh = init_device_mesh("cpu", (group.size,))
    whole = load_model(device="cpu", dtype=torch.float64)
    ids, start = batch(), prompt()
    expected = train_loss(whole, ids)
    expected.backward()

    def train(model: nn.Module) -> Tensor:
        with loss_parallel():
            loss = train_loss(model, ids)
            loss.backward()
        return loss.full_tensor()

    found = {}
    models = {name: with_engine(whole, mesh, shared) for name, shared in ENGINES.items()}
    for name, model in models.items():
        loss = []
        steps = profiled(lambda model=model, loss=loss: loss.append(train(model)))
        wrong = [
            error(full(p.grad), q.grad)
            for p, q in zip(model.parameters(), whole.parameters(), strict=True)
        ]
        found[name] = {"loss": error(loss[0], expected), "gradients": max(wrong), "train": steps}
        with torch.no_grad():
            found[name]["logits"] = error(full(model(ids)[0]), whole(ids)[0])
    part = parallelize(whole, group)
    by_hand = profiled(lambda: train_loss(part, ids, group).backward())
    found["by hand"] = {"train": by_hand}
    found["ids"], found["cache bytes"] = engine_ids(models["one input"], start)
    return found


ENGINES = {"plain plan": False, "one input": True}


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be spread over the ranks (a DTensor)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def engine_ids(model: nn.Module, ids: Tensor) -> tuple[list[int], int]:
    """Greedy ids with a cache, and the cache's bytes on this rank."""
    new, cache = ids, None
    for _ in range(NEW):
        logits, cache = model(new, cache, use_cache=True)
        new = full(logits)[:, -1:].argmax(dim=-1)
        ids = torch.cat([ids, new], dim=1)
    return ids[0].tolist(), cache.nbytes
