"""One decoding step as one program: what is left when Python is out of the way (chapter 07).

`fast_decode` calls PyTorch about fifty times for a token of a small model. Here the whole step is
exported as one graph, and TorchInductor makes C++ of it, ahead of time: it joins what can be
joined, and puts the weights in the order in which its own products read them. The price: a C++
compiler, half a minute or more, a second copy of the weights, and weights that stay as they were.

Shapes: H num_heads, T new tokens, K positions up to the new one, S max_seq_len, D d_model,
d d_head, V vocab_size.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor import aoti_compile_and_package, aoti_load_package
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from ...generation import check_request
from ...kv_cache import check_rollback
from ...transformer import DecoderOnlyTransformer
from .fast_decode import FastTransformer, RowCache, fast, product, ways_of

INDUCTOR = {"freezing": True, "max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}


class Step(nn.Module):
    """One decoding step as a function of tensors alone, the cache among them."""

    def __init__(self, model: DecoderOnlyTransformer):
        super().__init__()
        self.model = model
        self.register_buffer("heads", torch.arange(model.num_heads)[:, None], persistent=False)

    def forward(
        self, token: Tensor, positions: Tensor, keys: list[Tensor], values: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits (1, V) after `token` (1,), and the likeliest next token (1,).

        `positions` (K,) counts from 0 to the token's own. `keys` and `values`, (H, S + 1, d) for
        each layer, get what is new.
        """
        model, at = self.model, positions[-1:]
        x = model.token_embedding(token) + model.pos_embedding(at)
        for layer, k, v in zip(model.layers, keys, values, strict=True):
            x = x + self.attend(layer.attention, layer.norm1(x), positions, k, v)
            x = x + layer.feed_forward(layer.norm2(x))
        logits = model.output_projection(model.norm(x))
        return logits, logits.argmax(dim=-1)

    def attend(
        self, attention: nn.Module, x: Tensor, positions: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Attention of one position (1, D): sums that the compiler turns into loops."""
        weight = torch.cat([W.weight for W in (attention.W_q, attention.W_k, attention.W_v)])
        q, k, v = F.linear(x, weight).view(3, attention.num_heads, 1, -1)
        for stored, new in ((keys, k), (values, v)):
            stored.index_put_((self.heads, positions[None, -1:]), new)
        seen = positions.size(0)
        scores = (q * keys[:, :seen]).sum(-1) / q.size(-1) ** 0.5
        mixed = (scores.softmax(-1)[:, :, None] * values[:, :seen]).sum(1)
        return attention.W_o(mixed.view(1, -1))


class StepCache:
    """A cache of one sequence, laid out for `Step`: keys and values, each (layer, H, S + 1, d).

    One position more than is ever used: without it, a full cache would be a case of its own, which
    the compiler asks to treat apart.
    """

    batch_size = 1

    def __init__(self, model: DecoderOnlyTransformer):
        shape = (model.num_layers, model.num_heads, model.max_seq_len + 1, model.d_head)
        self.length = 0
        self.keys = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.values = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.by_layer = [*self.keys, *self.values]
        self.head = product(ways_of(model), model.output_projection)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (1, H, T, d) of the new positions; return views (1, H, K, d) of all."""
        start, end = self.length, self.length + k.size(2)
        self.keys[layer, :, start:end] = k[0]
        self.values[layer, :, start:end] = v[0]
        if layer == len(self.keys) - 1:
            self.length = end
        return self.keys[layer, None, :, :end], self.values[layer, None, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Raises NotImplementedError unless `rows` leaves the one row where it is."""
        if rows.tolist() != [0]:
            raise NotImplementedError(
                f"reorder({rows.tolist()}): a compiled step decodes one sequence. For several, a "
                "beam search among them, use fast(model)."
            )

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on. Raises ValueError if fewer are stored."""
        check_rollback(length, self.length)
        self.length = length

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class CompiledTransformer(FastTransformer):
    """`FastTransformer` whose step for one token of one sequence is a compiled program.

    The program knows the weights that it was made for. Where the model has others by now, or is
    elsewhere, it decodes as `FastTransformer` does.
    """

    def build(self) -> None:
        """Make the program, for the weights of now."""
        self.new_cache(batch_size=2)  # puts the weights where they will stay
        self.positions = torch.arange(self.max_seq_len)
        self.program = compile_step(self)
        self.made_for = self.weights()

    def weights(self) -> list[tuple[int, int]]:
        """Where each weight lies, and how often it was written: other weights, another list."""
        return [(p.data_ptr(), p._version) for p in self.parameters()]

    def new_cache(self, batch_size: int) -> StepCache | RowCache:
        """An empty cache; that of one sequence is laid out for the compiled step."""
        fits = batch_size == 1 and self.weights() == self.made_for
        return StepCache(self) if fits else super().new_cache(batch_size)

    def step(self, token: Tensor, cache: StepCache) -> tuple[Tensor, Tensor]:
        """Logits (1, V) after `token` (1,), whose k and v are stored; and the likeliest token."""
        cache.length += 1
        given = [token, self.positions[: cache.length], *cache.by_layer]
        logits, likeliest = self.program.loader.run(given)  # program(...) sorts them first: 20 µs
        return logits, likeliest

    def is_step(self, input_ids: Tensor, past_kv: Any) -> bool:
        """Whether the program can take this input: one token, after at least one other."""
        one = input_ids.size(1) == 1 and isinstance(past_kv, StepCache) and past_kv.length > 0
        return one and not self.trains()

    def forward(
        self, input_ids: Tensor, past_kv: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        """As `DecoderOnlyTransformer.forward`: logits (B, T, V), and the cache if `use_cache`."""
        self.check_input(input_ids, past_kv, use_cache)
        if self.is_step(input_ids, past_kv):
            return self.step(input_ids[0], past_kv)[0][:, None], past_kv
        return super().forward(input_ids, past_kv, use_cache)

    def last_logits(
        self, input_ids: Tensor, past_kv: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        """As `forward`, but only the logits (B, 1, V) of the last position."""
        if self.is_step(input_ids, past_kv):
            return self(input_ids, past_kv, use_cache)
        return super().last_logits(input_ids, past_kv, use_cache)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        use_cache: bool = True,
        **options: Any,
    ) -> Tensor:
        """As `DecoderOnlyTransformer.generate`; greedy decoding of one sequence is shortest."""
        check_request(self, input_ids, max_new_tokens, temperature)
        cache = self.new_cache(len(input_ids))
        greedy = temperature == 0 and use_cache and not options and max_new_tokens > 0
        if not greedy or not isinstance(cache, StepCache):
            return super().generate(input_ids, max_new_tokens, temperature, use_cache, **options)
        logits, _ = self.last_logits(input_ids, cache, use_cache=True)
        tokens = [logits[:, -1].argmax(dim=-1)]
        while len(tokens) < max_new_tokens:
            tokens.append(self.step(tokens[-1], cache)[1])
        return torch.cat([input_ids, torch.stack(tokens, dim=1)], dim=1)


def has_compiler() -> bool:
    """Whether TorchInductor finds a C++ compiler here, and can link to PyTorch.

    Its command for the linker breaks at a space in the path of PyTorch (seen with PyTorch 2.13).
    """
    try:
        return bool(get_cpp_compiler()) and " " not in torch.__file__
    except InvalidCxxCompiler:
        return False


def compiled(model: DecoderOnlyTransformer) -> CompiledTransformer:
    """A copy of the model with a compiled decoding step, for this processor and thread count.

    Takes from half a minute up; `torch.set_num_threads` must stay what it is now. Raises
    RuntimeError if there is no C++ compiler, ValueError if the model is not on the CPU.
    """
    if model.device.type != "cpu":
        raise ValueError(f"The model is on {model.device}; compiled() is for the CPU.")
    if not has_compiler():
        raise RuntimeError(
            "No C++ compiler was found, or PyTorch's path has a space in it, and TorchInductor "
            "writes C++. Install one (Debian: g++; macOS: xcode-select --install; Windows: Visual "
            "Studio's Build Tools), move the course to a path without spaces, or use fast(model)."
        )
    made = fast(model, CompiledTransformer)
    made.build()
    return made


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep TorchInductor's remarks to itself."""
    logger = logging.getLogger("torch._inductor")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logger.setLevel(level)


def compile_step(model: CompiledTransformer) -> Any:
    """The program that computes `Step` for any number of positions from 2 to `max_seq_len`."""
    cache = StepCache(model)
    keys, values = list(cache.keys), list(cache.values)
    example = (torch.zeros(1, dtype=torch.long), model.positions[:2], keys, values)
    seen = {0: torch.export.Dim("seen", min=2, max=model.max_seq_len)}
    same = [None] * model.num_layers
    with (
        torch.no_grad(),
        quiet(),
        tempfile.TemporaryDirectory() as folder,
    ):
        graph = torch.export.export(
            Step(model), example, dynamic_shapes=(None, seen, same, same), strict=False
        )
        package = aoti_compile_and_package(
            graph, package_path=str(Path(folder) / "step.pt2"), inductor_configs=INDUCTOR
        )
        return aoti_load_package(package)
