"""The contenders of `peers.py`, each in a process of its own, all with the same weights.

A process answers one request at a time; while others are timed it waits. So no contender shares
threads, an allocator or a peak of memory with another.

    python engines.py NAME SHAPE THREADS

That is what a process runs; the two engines in C++ have files of their own.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before this file's folder; the second for `reference`, which knows GPT-2's names of our weights.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

import torch

from benchmarks.serve import Generate, serve
from course_utils.going_further.speed.compiled_decode import compiled
from course_utils.going_further.speed.fast_decode import fast
from course_utils.going_further.speed.roofline import in_turns, readers, weight_bytes
from course_utils.transformer import DecoderOnlyTransformer

READERS = 3
HERE = Path(__file__).resolve().parent
# vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads
SHAPES = {
    "S": (1000, 128, 512, 4, 1100, 4),
    "M": (50257, 256, 1024, 6, 1100, 4),
    "L": (50257, 768, 3072, 12, 1024, 12),
}


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
    """No engine: moves as many bytes as the weights of one token have, `new` times.

    The prompt names the way: [0] is the fastest of those in `roofline.readers`, as found here and
    now, [1] the next, up to `READERS`.
    """
    ways = readers(weight_bytes(model))
    with torch.no_grad():
        order = in_turns(ways).median().sort_values().index[:READERS]

    @torch.no_grad()
    def read(prompt: list[int], new: int) -> list[int]:
        move = ways[order[prompt[0]]]
        for _ in range(new):
            move()
        return []

    return read


PLAIN, BY_COLUMNS = "course, plain", "course, plain by columns"
FAST, COMPILED = "course, fast", "course, compiled"
NO_CACHE, FAIR = "course, no cache", "course, fast, no cache"
TRANSFORMERS, CTRANSLATE2, ONNXRUNTIME = "transformers", "CTranslate2", "ONNX Runtime"
MEMORY = "memory"
ENGINES: dict[str, Callable[[DecoderOnlyTransformer], Generate]] = {
    PLAIN: generates,
    BY_COLUMNS: lambda model: generates(by_columns(model)),
    FAST: lambda model: generates(fast(model)),
    COMPILED: lambda model: generates(compiled(model)),
    TRANSFORMERS: transformers_engine,
    NO_CACHE: lambda model: generates(model, use_cache=False),
    FAIR: lambda model: generates(fast(model), use_cache=False),
    MEMORY: memory_engine,
}


class Contender:
    """An engine in a process of its own. Use it in a `with`: the process ends there."""

    def __init__(self, name: str, shape: str, threads: int):
        self.name = name
        self.folder = tempfile.TemporaryDirectory()
        arguments = [HERE / "engines.py", name, shape]
        if name == CTRANSLATE2:
            ctranslate2_spec(course_model(shape)).save(self.folder.name)
            arguments = [HERE / "ctranslate2_engine.py", self.folder.name]
        if name == ONNXRUNTIME:
            import onnx

            from benchmarks.onnx_graph import onnx_graph

            onnx.save(onnx_graph(course_model(shape)), Path(self.folder.name) / "model.onnx")
            arguments = [HERE / "onnxruntime_engine.py", self.folder.name]
        settings = {"OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "true"}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | settings,
        )
        self.ready = self.answer()

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The process of {self.name!r} ended: see above.")
        return json.loads(line)

    def run(self, prompt: list[int], new: int) -> dict[str, Any]:
        """What one generation gave: seconds, ids, and peak bytes of the process (0 if unknown)."""
        print(json.dumps([prompt, new]), file=self.process.stdin, flush=True)
        return self.answer()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.folder.cleanup()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    serve(lambda: ENGINES[sys.argv[1]](course_model(sys.argv[2])))
