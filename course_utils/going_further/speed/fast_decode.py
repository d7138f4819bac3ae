"""The course's model, decoding close to the speed at which its weights can be read (chapter 07).

Same weights, same interface, same numbers as `DecoderOnlyTransformer`. A decoding step is short:
what it costs is reading every weight once, and Python. So, for one new token:

    each product is computed in the way that this machine does fastest (`products.py` finds out)
    one matrix product makes q, k and v, and writes them into the cache
    biases and the residual stream are added by the products themselves
    attention is PyTorch's fused kernel, over views of the cache that are made once a step

A prefill of one sequence goes the same way, and computes the logits of its last position only,
where nobody asks for the others. All else (several tokens after others, training) takes the
ordinary path.

Shapes: B batch, H num_heads, T new tokens, K all positions, S max_seq_len, D d_model, d d_head,
V vocab_size.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import generation
from ...attention import FusedAttention
from ...kv_cache import check_rollback
from ...transformer import DecoderOnlyTransformer
from .products import Product, Shape, below, by_number, choose, for_many, ways


class RowCache:
    """Room for `max_seq_len` positions, a position's q, k and v side by side, as they are made.

    The queries are of no further use. They cost half as much memory again, and save two of three
    writes a layer. `steps`, `norm` and `head` are the short path over the model's weights of now.
    """

    def __init__(self, model: "FastTransformer", batch_size: int):
        shape = (model.num_layers, batch_size, model.max_seq_len, 3, model.num_heads, model.d_head)
        self.length = 0
        self.hold(torch.empty(shape, dtype=model.dtype, device=model.device))
        chosen = ways_of(model)
        self.steps = [layer_step(layer, chosen) for layer in model.layers]
        self.norm = normalize(model.norm)
        self.head = product(chosen, model.output_projection)

    def hold(self, rows: Tensor) -> None:
        """Keep `rows`, and views of it: what is new at each position, and all keys and values."""
        self.rows = rows
        self.batch_size = rows.size(1)
        self.new = rows.flatten(3).permute(2, 0, 1, 3)  # (S, layer, B, 3 D)
        queries, self.keys, self.values = rows.permute(3, 0, 1, 4, 2, 5)  # (layer, B, H, S, d)
        self.queries = queries.permute(3, 0, 1, 2, 4).unsqueeze(4)  # (S, layer, B, H, 1, d)

    def views(self, start: int, end: int) -> Iterator[tuple[Tensor, ...]]:
        """For each layer: where q, k, v of positions from `start` to `end` go, as rows (N, 3 D);
        then the queries (B, H, T, d) there, and the keys and values (B, H, K, d) of all positions.

        The rows are those of one position in each sequence, or of several in the one there is.
        """
        if end - start == 1:
            new, queries = self.new[start], self.queries[start]
        else:
            new = self.rows[:, 0, start:end].flatten(2)
            queries = self.rows[:, :, start:end, 0].transpose(2, 3)
        stored = (t.narrow(3, 0, end).unbind() for t in (self.keys, self.values))
        return zip(new.unbind(), queries.unbind(), *stored, strict=True)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, T, d) of the new positions; return views (B, H, K, d) of all."""
        start, end = self.length, self.length + k.size(2)
        self.rows[layer, :, start:end, 1] = k.transpose(1, 2)
        self.rows[layer, :, start:end, 2] = v.transpose(1, 2)
        if layer == self.rows.size(0) - 1:
            self.length = end
        _, keys, values = self.rows[layer, :, :end].permute(2, 0, 3, 1, 4)
        return keys, values

    def reorder(self, rows: Tensor) -> None:
        """Make row i a copy of what row `rows[i]` was; there are then len(rows) rows."""
        self.hold(self.rows[:, rows])

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on. Raises ValueError if fewer are stored."""
        check_rollback(length, self.length)
        self.length = length

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes


def store(by_columns: bool, *linears: nn.Linear) -> Tensor:
    """The layers' weights (D_out, D_in) one below the other, (sum of all D_out, D_in).

    In memory row after row, or column after column. The layers' own weights become views of it, so
    that none is kept twice.
    """
    weights = [linear.weight for linear in linears]
    sizes = [weight.size(0) for weight in weights]
    stored = getattr(linears[0], "stored", torch.empty(sum(sizes), 0))
    there = [w.data_ptr() for w in weights] == [part.data_ptr() for part in stored.split(sizes)]
    if not (there and (stored.T if by_columns else stored).is_contiguous()):
        stored = below(weights)
        stored = linears[0].stored = stored.T.contiguous().T if by_columns else stored.contiguous()
        for weight, part in zip(weights, stored.split(sizes), strict=True):
            weight.data = part
    return stored


def product(chosen: dict[Shape, str], *linears: nn.Linear) -> Product:
    """The product with the layers' weights, one below the other, in the way chosen for their shape.

    A way that keeps a copy of the weights makes it anew when they have changed: a product with a
    fixed vector says so, at the price of reading them once.
    """
    shape = sum(linear.out_features for linear in linears), linears[0].in_features
    way = ways(linears[0].weight.dtype)[chosen[shape]]
    weight = store(way.by_columns, *linears)
    if not way.copies:
        return by_number(way.of(weight), for_many(weight))
    is_now = weight.float() @ torch.linspace(1, 2, weight.size(1))
    place, was, made = getattr(linears[0], "packed", (None, None, None))
    if place != weight.data_ptr() or not torch.equal(was, is_now):
        made = way.of(weight)
        linears[0].packed = weight.data_ptr(), is_now, made
    return by_number(made, for_many(weight, packed=made))


def ways_of(model: DecoderOnlyTransformer) -> dict[Shape, str]:
    """The ways for the matrices in the order in which a token meets them; q, k, v are one."""
    linears = []
    for layer in model.layers:
        heads, block = layer.attention, layer.feed_forward
        linears += [[heads.W_q, heads.W_k, heads.W_v], [heads.W_o], [block.fc1], [block.fc2]]
    linears.append([model.output_projection])
    return choose([[linear.weight for linear in group] for group in linears])


def normalize(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """`norm` without what a module costs to call."""
    weight, bias, shape, eps = norm.weight, norm.bias, norm.normalized_shape, norm.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def layer_step(layer: nn.Module, chosen: dict[Shape, str]) -> Callable[..., Tensor]:
    """The short path through one `DecoderLayer`.

    It returns the residual stream (N, D) after x (N, D), writes q, k and v of the new positions
    into `new` (N, 3 D), and attends from q (B, H, T, d) to keys and values (B, H, K, d): all are
    views of the cache. One of B and T is 1, the other N; with T > 1, K = T.
    """
    heads, block = layer.attention, layer.feed_forward
    norm1, norm2 = normalize(layer.norm1), normalize(layer.norm2)
    qkv, out = product(chosen, heads.W_q, heads.W_k, heads.W_v), product(chosen, heads.W_o)
    up, down = product(chosen, block.fc1), product(chosen, block.fc2)
    up_bias, down_bias = block.fc1.bias, block.fc2.bias

    def step(x: Tensor, new: Tensor, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        qkv(norm1(x), out=new)
        if q.size(2) == 1:
            mixed = F.scaled_dot_product_attention(q, keys, values).flatten(1)
        else:
            mixed = F.scaled_dot_product_attention(q, keys, values, is_causal=True)
            mixed = mixed.transpose(1, 2).flatten(2)[0]
        x = out(mixed, x)
        hidden = up(norm2(x), up_bias).relu_()
        return down(hidden, x.add_(down_bias))

    return step


class FastTransformer(DecoderOnlyTransformer):
    """`DecoderOnlyTransformer` with a short path for one new token in each sequence."""

    def __init__(self, *shape: int, **options: Any):
        super().__init__(*shape, **options)
        for layer in self.layers:
            heads = layer.attention
            layer.attention = FusedAttention(heads.W_q.in_features, heads.num_heads)

    def new_cache(self, batch_size: int) -> RowCache:
        """An empty cache for `batch_size` sequences, over the weights that the model has now."""
        return RowCache(self, batch_size)

    def forward(
        self, input_ids: Tensor, past_kv: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        """As `DecoderOnlyTransformer.forward`: logits (B, T, V), and the cache if `use_cache`."""
        hidden, past_kv = self.hidden(input_ids, past_kv, use_cache)
        return self.output_projection(hidden), past_kv

    def last_logits(
        self, input_ids: Tensor, past_kv: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        """As `forward`, but only the logits (B, 1, V) of the last position."""
        hidden, past_kv = self.hidden(input_ids, past_kv, use_cache)
        head = getattr(past_kv, "head", None)
        if head is None or self.trains():
            return self.output_projection(hidden[:, -1:]), past_kv
        return head(hidden[:, -1], self.output_projection.bias)[:, None], past_kv

    def hidden(
        self, input_ids: Tensor, past_kv: Any, use_cache: bool
    ) -> tuple[Tensor, RowCache | None]:
        """What the output projection reads, (B, T, D), and the cache. Raises as `forward` does."""
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        if self.is_short(input_ids, past_kv):
            hidden = past_kv.norm(self.short_path(input_ids, past_kv))
            return hidden.view(*input_ids.shape, -1), past_kv
        x = self.embed(input_ids, 0 if past_kv is None else past_kv.length)
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return self.norm(x), past_kv

    def trains(self) -> bool:
        """Whether gradients or dropout are wanted: the short path knows neither."""
        return self.training or torch.is_grad_enabled()

    def is_short(self, input_ids: Tensor, cache: Any) -> bool:
        """Whether it is one new token in each sequence, or the beginning of the only one."""
        if not isinstance(cache, RowCache) or self.trains():
            return False
        return input_ids.size(1) == 1 or (input_ids.size(0) == 1 and cache.length == 0)

    def short_path(self, ids: Tensor, cache: RowCache) -> Tensor:
        """The residual stream (N, D) after all layers for the N new tokens, (N, 1) or (1, N)."""
        start, end = cache.length, cache.length + ids.size(1)
        x = torch.embedding(self.token_embedding.weight, ids.flatten())
        x.add_(self.pos_embedding.weight[start:end])
        for step, of_layer in zip(cache.steps, cache.views(start, end), strict=True):
            x = step(x, *of_layer)
        cache.length = end
        return x

    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        use_cache: bool = True,
        **options: Any,
    ) -> Tensor:
        """As `DecoderOnlyTransformer.generate`, without logits that are not looked at."""
        model = _LastOnly(self)
        return generation.generate(
            model, input_ids, max_new_tokens, temperature, use_cache, **options
        )


class _LastOnly(nn.Module):
    """What `generation` needs of a model: two tables, and logits of which it reads the last."""

    def __init__(self, model: FastTransformer):
        super().__init__()
        self.token_embedding, self.pos_embedding = model.token_embedding, model.pos_embedding
        self.forward = model.last_logits


def fast(
    model: DecoderOnlyTransformer, model_class: type[FastTransformer] = FastTransformer
) -> FastTransformer:
    """A copy of the model that decodes by the short path: same weights, same logits to rounding.

    The first time for a shape it takes a while, since it finds out how this machine likes its
    products: under a second for a small model, a few for one of GPT-2's size.
    """
    vocab_size, d_model = model.token_embedding.weight.shape
    d_ff = model.layers[0].feed_forward.fc1.out_features
    shape = (vocab_size, d_model, d_ff, model.num_layers, model.max_seq_len, model.num_heads)
    made = model_class(*shape, dropout=0.0).to(device=model.device, dtype=model.dtype)
    made.load_state_dict(model.state_dict())
    RowCache(made, batch_size=1)  # finds out
    return made.eval()
