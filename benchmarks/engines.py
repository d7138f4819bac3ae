"""The contenders of `peers.py`, each in a process of its own, all with the same weights.

A process answers one request at a time; while others are timed it waits. So no contender shares
threads, an allocator or a peak of memory with another.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Before this file's folder; the second for `reference`, which knows GPT-2's names of our weights.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests"))

import torch

from course_utils.fast_decode import fast
from course_utils.going_further.compiled_decode import compiled
from course_utils.going_further.roofline import weight_bytes
from course_utils.transformer import DecoderOnlyTransformer

# vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads
SHAPES = {
    "S": (1000, 128, 512, 4, 1100, 4),
    "M": (50257, 256, 1024, 6, 1100, 4),
    "L": (50257, 768, 3072, 12, 1024, 12),
}
Generate = Callable[[list[int], int], list[int]]  # a prompt and how many tokens -> the new tokens


def course_model(shape: str) -> DecoderOnlyTransformer:
    """The course's model with random weights: the same ones in every process."""
    torch.manual_seed(0)
    return DecoderOnlyTransformer(*SHAPES[shape], dropout=0.0).eval()


def generates(model: DecoderOnlyTransformer, use_cache: bool = True) -> Generate:
    """The greedy `generate` of a model with the course's interface."""

    def generate(prompt: list[int], new: int) -> list[int]:
        ids = model.generate(torch.tensor([prompt]), new, temperature=0, use_cache=use_cache)
        return ids[0, len(prompt) :].tolist()

    return generate


def by_columns(model: DecoderOnlyTransformer) -> DecoderOnlyTransformer:
    """The model itself, its matrices in memory column after column, as GPT-2's are."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.T.contiguous().T
    return model


def transformers_engine(model: DecoderOnlyTransformer) -> Generate:
    """Hugging Face's GPT-2, with its fused attention and its own cache."""
    from reference import gpt2_model

    peer = gpt2_model(model.state_dict(), model.num_heads).float()
    peer.set_attn_implementation("sdpa")

    def generate(prompt: list[int], new: int) -> list[int]:
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        ids = peer.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return ids[0, len(prompt) :].tolist()

    return generate


def ctranslate2_engine(model: DecoderOnlyTransformer) -> Generate:
    """CTranslate2's decoder in float32."""
    import ctranslate2

    with tempfile.TemporaryDirectory() as folder:
        ctranslate2_spec(model).save(folder)
        peer = ctranslate2.Generator(
            folder, compute_type="float32", inter_threads=1, intra_threads=torch.get_num_threads()
        )

    def generate(prompt: list[int], new: int) -> list[int]:
        tokens = [str(token) for token in prompt]
        options = {"max_length": new, "include_prompt_in_result": False, "end_token": []}
        return peer.generate_batch([tokens], **options)[0].sequences_ids[0]

    return generate


def ctranslate2_spec(model: DecoderOnlyTransformer) -> Any:
    """The model's weights under CTranslate2's names."""
    from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

    spec = TransformerDecoderModelSpec.from_config(
        model.num_layers, model.num_heads, pre_norm=True, activation=common_spec.Activation.RELU
    )

    def give(layer: Any, *modules: Any, names: tuple[str, str] = ("weight", "bias")) -> None:
        weights = torch.cat([module.weight.detach() for module in modules])
        setattr(layer, names[0], weights.numpy())
        if modules[0].bias is not None:
            setattr(layer, names[1], modules[0].bias.detach().numpy())

    decoder, norm = spec.decoder, ("gamma", "beta")
    decoder.scale_embeddings = False
    decoder.embeddings.weight = model.token_embedding.weight.detach().numpy()
    decoder.position_encodings.encodings = model.pos_embedding.weight.detach().numpy()
    give(decoder.layer_norm, model.norm, names=norm)
    give(decoder.projection, model.output_projection)
    for theirs, ours in zip(decoder.layer, model.layers, strict=True):
        heads, block = ours.attention, ours.feed_forward
        give(theirs.self_attention.layer_norm, ours.norm1, names=norm)
        give(theirs.self_attention.linear[0], heads.W_q, heads.W_k, heads.W_v)
        give(theirs.self_attention.linear[1], heads.W_o)
        give(theirs.ffn.layer_norm, ours.norm2, names=norm)
        give(theirs.ffn.linear_0, block.fc1)
        give(theirs.ffn.linear_1, block.fc2)
    spec.register_vocabulary([str(i) for i in range(model.output_projection.out_features)])
    spec.config.unk_token = spec.config.bos_token = spec.config.eos_token = "0"
    spec.validate()
    return spec


def memory_engine(model: DecoderOnlyTransformer) -> Generate:
    """No engine: reads as many bytes as the weights of one token have, `new` times."""
    words = torch.ones(weight_bytes(model) // 4)

    def read(prompt: list[int], new: int) -> list[int]:
        for _ in range(new):
            words.sum()
        return []

    return read


PLAIN, BY_COLUMNS = "course, plain", "course, plain by columns"
FAST, COMPILED = "course, fast", "course, compiled"
NO_CACHE, FAIR = "course, no cache", "course, fast, no cache"
TRANSFORMERS, CTRANSLATE2, MEMORY = "transformers", "CTranslate2", "memory"
ENGINES: dict[str, Callable[[DecoderOnlyTransformer], Generate]] = {
    PLAIN: generates,
    BY_COLUMNS: lambda model: generates(by_columns(model)),
    FAST: lambda model: generates(fast(model)),
    COMPILED: lambda model: generates(compiled(model)),
    TRANSFORMERS: transformers_engine,
    CTRANSLATE2: ctranslate2_engine,
    NO_CACHE: lambda model: generates(model, use_cache=False),
    FAIR: lambda model: generates(fast(model), use_cache=False),
    MEMORY: memory_engine,
}


class Contender:
    """An engine in a process of its own. Use it in a `with`: the process ends there."""

    def __init__(self, name: str, shape: str, threads: int):
        for setting in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[setting] = str(threads)
        os.environ |= {"OMP_PROC_BIND": "true", "TOKENIZERS_PARALLELISM": "false"}
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, name, shape, threads))
        self.process.start()
        theirs.close()
        self.ready = self.answer()

    def answer(self) -> dict[str, Any]:
        try:
            return self.ours.recv()
        except EOFError:
            raise RuntimeError(f"The process of {self.name!r} ended: see above.") from None

    def run(self, prompt: list[int], new: int) -> dict[str, Any]:
        """What one generation gave: seconds, ids, and peak bytes of the process (0 if unknown)."""
        self.ours.send((prompt, new))
        return self.answer()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.process.join(10)
        self.process.kill()


def _serve(pipe: Connection, name: str, shape: str, threads: int) -> None:
    """Make the engine, then answer until the other side closes the pipe."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    before = _memory("VmRSS")
    generate = ENGINES[name](course_model(shape))
    pipe.send({"seconds": time.perf_counter() - start})
    while True:
        try:
            prompt, new = pipe.recv()
        except EOFError:
            return
        generate(prompt, 2)  # its threads are awake
        _forget_peak()
        start = time.perf_counter()
        ids = generate(prompt, new)
        seconds = time.perf_counter() - start
        pipe.send({"seconds": seconds, "ids": ids, "peak": _memory("VmHWM") - before})


def _memory(field: str) -> int:
    """Bytes that Linux tells of this process: VmRSS now, VmHWM at the peak. 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _forget_peak() -> None:
    """Set this process's peak of memory to what it holds now."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return
