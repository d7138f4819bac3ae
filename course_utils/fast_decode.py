"""The course's model, decoding close to the speed at which its weights can be read (chapter 06).

Same weights, same interface, same numbers as `DecoderOnlyTransformer`. A decoding step is short:
what it costs is reading every weight once, and Python. So, for one new token:

    a large matrix is read by all threads (PyTorch alone multiplies one row on one thread)
    one matrix product makes q, k and v
    attention is PyTorch's fused kernel, over views of the cache that are made once a step
    what a layer adds is added in place

and a prefill computes the logits of its last position only, where nobody asks for the others.
All else (a prefill, several tokens at once, training) takes the ordinary path.

Shapes: B batch, H num_heads, T new tokens, K all positions, S max_seq_len, D d_model, d d_head,
V vocab_size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import generation
from .attention import FusedAttention
from .kv_cache import check_rollback
from .transformer import DecoderOnlyTransformer

LARGE = 30_000  # weights in a matrix from which a second thread pays (measured: two cores, AVX2)


class RowCache:
    """Room for `max_seq_len` positions, a position's q, k and v side by side, as they are made.

    The queries are of no further use. They cost half as much memory again, and save two of three
    writes a layer. `steps` and `head` are the short path over the model's weights of now.
    """

    def __init__(self, model: "FastTransformer", batch_size: int):
        shape = (model.num_layers, batch_size, model.max_seq_len, 3, model.num_heads, model.d_head)
        self.rows = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.length = 0
        self.batch_size = batch_size
        self.steps = [layer_step(layer) for layer in model.layers]
        self.head = product(model.output_projection.weight, model.output_projection.bias)

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
        self.rows = self.rows[:, rows]
        self.batch_size = len(rows)

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on. Raises ValueError if fewer are stored."""
        check_rollback(length, self.length)
        self.length = length

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes


def product(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """A function from x (B, D_in) to x @ weight.T + bias (B, D_out), for a weight (D_out, D_in).

    For one row, a large weight is cut into as many parts as there are threads: a batch of products,
    which PyTorch computes side by side.
    """
    parts = torch.get_num_threads()
    plain = partial(F.linear, weight=weight, bias=bias)
    if parts == 1 or weight.numel() < LARGE:
        return plain
    even = weight.size(0) - weight.size(0) % parts
    split, rest = weight[:even].view(parts, -1, weight.size(1)), weight[even:]

    def side_by_side(x: Tensor) -> Tensor:
        if x.size(0) != 1:
            return plain(x)
        y = torch.bmm(split, x.T.expand(parts, -1, -1)).view(1, -1)
        y = torch.cat([y, F.linear(x, rest)], dim=1) if len(rest) else y
        return y if bias is None else y.add_(bias)

    return side_by_side


def merged_qkv(heads: nn.Module) -> Tensor:
    """W_q, W_k and W_v in one weight (3 D, D), of which the three become views: no copy is kept."""
    weights = [linear.weight for linear in (heads.W_q, heads.W_k, heads.W_v)]
    parts = heads.qkv.chunk(3) if hasattr(heads, "qkv") else ()
    if [part.data_ptr() for part in parts] != [weight.data_ptr() for weight in weights]:
        heads.qkv = torch.cat([weight.detach() for weight in weights])
        for weight, part in zip(weights, heads.qkv.chunk(3), strict=True):
            weight.data = part
    return heads.qkv


def layer_step(layer: nn.Module) -> Callable[..., None]:
    """The short path through one `DecoderLayer`.

    It adds to the residual stream x (B, D) in place, writes q, k and v of the new position into
    `write` (B, 3 D), and attends from q (B, H, 1, d) to keys and values (B, H, K, d): all are views
    of the cache.
    """
    heads, block = layer.attention, layer.feed_forward
    qkv, out = product(merged_qkv(heads)), product(heads.W_o.weight)
    up = product(block.fc1.weight, block.fc1.bias)
    down = product(block.fc2.weight, block.fc2.bias)

    def step(x: Tensor, write: Tensor, q: Tensor, keys: Tensor, values: Tensor) -> None:
        write.copy_(qkv(layer.norm1(x)))
        x += out(F.scaled_dot_product_attention(q, keys, values).flatten(1))
        x += down(up(layer.norm2(x)).relu_())

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
        head = past_kv.head if isinstance(past_kv, RowCache) else self.output_projection
        return head(hidden[:, -1])[:, None], past_kv

    def hidden(
        self, input_ids: Tensor, past_kv: Any, use_cache: bool
    ) -> tuple[Tensor, RowCache | None]:
        """What the output projection reads, (B, T, D), and the cache. Raises as `forward` does."""
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        ordinary = self.training or torch.is_grad_enabled()
        if isinstance(past_kv, RowCache) and input_ids.size(1) == 1 and not ordinary:
            return self.norm(self.one_token(input_ids[:, 0], past_kv))[:, None], past_kv
        x = self.embed(input_ids, 0 if past_kv is None else past_kv.length)
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return self.norm(x), past_kv

    def one_token(self, ids: Tensor, cache: RowCache) -> Tensor:
        """The residual stream (B, D) after all layers for one new token (B,) in each sequence."""
        at = cache.length
        x = self.token_embedding.weight[ids] + self.pos_embedding.weight[at]
        new = cache.rows[:, :, at]
        queries = new[:, :, 0].unsqueeze(3)
        _, keys, values = cache.rows[:, :, : at + 1].permute(3, 0, 1, 4, 2, 5)
        views = zip(new.flatten(2), queries, keys, values, strict=True)
        for step, of_layer in zip(cache.steps, views, strict=True):
            step(x, *of_layer)
        cache.length = at + 1
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


def fast(model: DecoderOnlyTransformer) -> FastTransformer:
    """A copy of the model that decodes by the short path: same weights, same logits to rounding."""
    vocab_size, d_model = model.token_embedding.weight.shape
    d_ff = model.layers[0].feed_forward.fc1.out_features
    shape = (vocab_size, d_model, d_ff, model.num_layers, model.max_seq_len, model.num_heads)
    made = FastTransformer(*shape, dropout=0.0).to(device=model.device, dtype=model.dtype)
    made.load_state_dict(model.state_dict())
    return made.eval()
