"""Tensor parallelism: one model in several processes, a part of every matrix in each (chapter 11).

All ranks run the same program on the same ids; what a rank lacks comes from adding up over all.
Source: Shoeybi et al., "Megatron-LM", 2019, section 3.

Shapes: B batch, T tokens, D d_model, F d_ff, V vocab_size, n ranks (`group.size`).
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...transformer import DecoderLayer, DecoderOnlyTransformer
from .groups import Group


def cut(tensor: Tensor, group: Group, dim: int) -> Tensor:
    """This rank's of n equal parts of a tensor along `dim`, each in one piece.

    Raises ValueError if there are no n equal parts.
    """
    if tensor.size(dim) % group.size:
        raise ValueError(
            f"{tensor.size(dim)} cannot be cut into {group.size} equal parts (dimension {dim} of "
            f"{tuple(tensor.shape)}): use a number of processes that divides it, or pad the tensor."
        )
    return tensor.chunk(group.size, dim=dim)[group.rank]


def split_layer(whole: dict[str, Tensor], group: Group, num_heads: int) -> dict[str, Tensor]:
    """This rank's part of the parameters of a `DecoderLayer`, under the same names.

    Raises ValueError if the ranks cannot have `num_heads` heads in equal shares.
    Source: Shoeybi et al., 2019, figure 3.
    """
    if num_heads % group.size:
        raise ValueError(
            f"{num_heads} heads cannot be shared by {group.size} processes: a head stays whole. "
            "Use a number of processes that divides num_heads."
        )
    rows = ("W_q.weight", "W_k.weight", "W_v.weight", "fc1.weight", "fc1.bias")
    columns = ("W_o.weight", "fc2.weight")
    part = {}
    for name, tensor in whole.items():
        if name.endswith(rows):
            tensor = cut(tensor, group, dim=0)
        elif name.endswith(columns):
            tensor = cut(tensor, group, dim=1)
        part[name] = tensor
    return part


class CopyTo(torch.autograd.Function):
    """f: the same x goes into every rank's part; its gradient is the sum of what comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.all_reduce(gradient), None


class ReduceFrom(torch.autograd.Function):
    """g: the ranks' parts are added up; the sum's gradient is that of every part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return group.all_reduce(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def copy_to(x: Tensor, group: Group) -> Tensor:
    """x itself; backward, the gradient summed over the ranks (Megatron's f)."""
    return CopyTo.apply(x, group)


def reduce_from(x: Tensor, group: Group) -> Tensor:
    """x summed over the ranks; backward, the gradient itself (Megatron's g)."""
    return ReduceFrom.apply(x, group)


def parallel_feed_forward(x: Tensor, part: nn.Module, group: Group) -> Tensor:
    """The feed-forward block (..., D) -> (..., D) of which `part` has F / n of the hidden units.

    `part.fc1` has weight (F/n, D) and bias (F/n,), `part.fc2` weight (D, F/n) and the whole bias
    (D,), which is added once, after the sum. One all-reduce each way.
    """
    x = copy_to(x, group)
    hidden = torch.relu(F.linear(x, part.fc1.weight, part.fc1.bias))
    return reduce_from(F.linear(hidden, part.fc2.weight), group) + part.fc2.bias


class ParallelLayer(nn.Module):
    """This rank's part of a `DecoderLayer`: num_heads / n heads and F / n hidden units.

    Two all-reduces forward, two backward.
    """

    def __init__(self, whole: DecoderLayer, group: Group):
        super().__init__()
        layer = copy.deepcopy(whole)
        part = split_layer(layer.state_dict(), group, layer.attention.num_heads)
        for name, tensor in part.items():
            layer.get_parameter(name).data = tensor.clone()
        layer.attention.num_heads //= group.size
        self.norm1, self.attention = layer.norm1, layer.attention
        self.norm2, self.feed_forward = layer.norm2, layer.feed_forward
        self.dropout, self.group = layer.dropout, group

    def forward(self, x: Tensor, cache: Any = None, layer: int = 0) -> Tensor:
        heads = self.attention(copy_to(self.norm1(x), self.group), cache, layer)
        x = x + self.dropout(reduce_from(heads, self.group))
        return x + self.dropout(parallel_feed_forward(self.norm2(x), self.feed_forward, self.group))


class ParallelOutput(nn.Module):
    """This rank's part of the output projection: logits (..., V / n), or all with `gather`."""

    def __init__(self, whole: nn.Linear, group: Group, gather: bool = False):
        super().__init__()
        self.weight = nn.Parameter(cut(whole.weight.detach(), group, dim=0).clone())
        self.bias = nn.Parameter(cut(whole.bias.detach(), group, dim=0).clone())
        self.group, self.gather = group, gather

    def forward(self, x: Tensor) -> Tensor:
        part = F.linear(copy_to(x, self.group), self.weight, self.bias)
        return gathered(part, self.group) if self.gather else part


def gathered(part: Tensor, group: Group) -> Tensor:
    """All logits (..., V) on every rank, by adding parts that are 0 elsewhere. Only for checks."""
    whole = part.new_zeros(*part.shape[:-1], group.size * part.size(-1))
    whole[..., group.rank * part.size(-1) :][..., : part.size(-1)] = part
    return group.all_reduce(whole)


def parallelize(
    whole: DecoderOnlyTransformer, group: Group, gather: bool = False
) -> DecoderOnlyTransformer:
    """This rank's part of a model: same interface, logits (B, T, V / n) unless `gather`.

    Embeddings and norms are whole on every rank. A cache of it holds num_heads / n heads.
    Raises ValueError if heads, hidden units or vocabulary cannot be shared out equally.
    """
    model = copy.deepcopy(whole)
    model.layers = nn.ModuleList(ParallelLayer(layer, group) for layer in whole.layers)
    model.output_projection = ParallelOutput(whole.output_projection, group, gather)
    model.num_heads //= group.size
    return model.train(whole.training)


def cross_entropy(part: Tensor, targets: Tensor, group: Group) -> Tensor:
    """Mean cross-entropy from this rank's logits (..., V / n) and the targets (...), a scalar.

    Three all-reduces of the shape of `targets`; no logits are sent.
    Source: Shoeybi et al., 2019, section 3.
    """
    top = group.all_reduce(part.amax(dim=-1), "max")
    total = reduce_from(torch.exp(part - top[..., None]).sum(dim=-1), group)
    index = targets - group.rank * part.size(-1)
    mine = (index >= 0) & (index < part.size(-1))
    chosen = part.gather(-1, index.where(mine, 0)[..., None])[..., 0]
    chosen = reduce_from(chosen.where(mine, 0.0), group)
    return (total.log() + top - chosen).mean()


def greedy_token(part: Tensor, group: Group) -> Tensor:
    """The likeliest token (B,) from this rank's logits (B, V / n) of the last position.

    Of equal logits the lowest id, as `argmax`. Two all-reduces of B numbers.
    """
    best, token = part.max(dim=-1)
    top = group.all_reduce(best, "max")
    token = token + group.rank * part.size(-1)
    nobody = group.size * part.size(-1)
    return group.all_reduce(token.where(best == top, nobody), "min")


@torch.no_grad()
def generate(
    model: DecoderOnlyTransformer, input_ids: Tensor, max_new_tokens: int, group: Group
) -> Tensor:
    """Greedy ids (B, T + max_new_tokens), with a cache; the same on every rank."""
    ids, new, past_kv = input_ids, input_ids, None
    for _ in range(max_new_tokens):
        part, past_kv = model(new, past_kv, use_cache=True)
        new = greedy_token(part[:, -1], group)[:, None]
        ids = torch.cat([ids, new], dim=1)
    return ids


def with_engine(whole: DecoderOnlyTransformer, mesh: Any, one_input: bool) -> nn.Module:
    """The same by PyTorch's own engine: a copy whose weights are DTensors on a `DeviceMesh`.

    Its logits are a DTensor too, spread over the vocabulary. With `one_input`, W_q, W_k and W_v
    share the copy of x that the attention is given, and with it the all-reduce of its gradient.
    """
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        parallelize_module,
    )

    plan = {
        "attention.W_q": ColwiseParallel(),
        "attention.W_k": ColwiseParallel(),
        "attention.W_v": ColwiseParallel(),
        "attention.W_o": RowwiseParallel(),
        "feed_forward.fc1": ColwiseParallel(),
        "feed_forward.fc2": RowwiseParallel(),
    }
    if one_input:
        same = (Replicate(), None, None)  # x; the cache and the layer's number are no tensors
        plan["attention"] = PrepareModuleInput(input_layouts=same, desired_input_layouts=same)
    model = copy.deepcopy(whole)
    for layer in model.layers:
        parallelize_module(layer, mesh, plan)
        layer.attention.num_heads //= mesh.size()
    head = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
    parallelize_module(model, mesh, {"output_projection": head})
    model.num_heads //= mesh.size()
    return model
