"""ONNX Runtime in float32, in a process without PyTorch.

    python onnxruntime_engine.py FOLDER THREADS

FOLDER holds the graph that `onnx_graph.py` makes. Keys and values stay in buffers that go in and
come out as the same memory, so that a step writes what is new and copies nothing.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from serve import Generate, serve


def session(folder: str, threads: int) -> ort.InferenceSession:
    """The graph, with all of ONNX Runtime's optimisations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    path = str(Path(folder) / "model.onnx")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def engine(folder: str, threads: int) -> Generate:
    run = session(folder, threads)
    caches = {
        put.name: ort.OrtValue.ortvalue_from_numpy(np.zeros(put.shape, dtype=np.float32))
        for put in run.get_inputs()
        if put.name.startswith("past_")
    }
    found = ort.OrtValue.ortvalue_from_numpy(np.zeros(1, dtype=np.int64))

    def bound(length: int) -> tuple[ort.IOBinding, dict[str, ort.OrtValue]]:
        """The session's inputs and outputs for that many tokens, tied to memory that stays."""
        shapes = {"ids": (length,), "positions": (length,), "seqlens_k": (1,), "total": ()}
        kinds = {"seqlens_k": np.int32, "total": np.int32}
        given = {
            name: ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, kinds.get(name, np.int64)))
            for name, shape in shapes.items()
        }
        binding = run.io_binding()
        for name, value in (given | caches).items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output("next", found)
        for name, value in caches.items():
            binding.bind_ortvalue_output(name.replace("past_", "present_"), value)
        return binding, given

    one_token = bound(1)

    def step(ids: list[int], start: int, binding: ort.IOBinding, given: dict) -> int:
        end = start + len(ids)
        given["ids"].update_inplace(np.array(ids, dtype=np.int64))
        given["positions"].update_inplace(np.arange(start, end, dtype=np.int64))
        given["seqlens_k"].update_inplace(np.array([end - 1], dtype=np.int32))
        given["total"].update_inplace(np.array(end, dtype=np.int32))
        run.run_with_iobinding(binding)
        return int(found.numpy()[0])

    def generate(prompt: list[int], new: int) -> list[int]:
        ids = [step(prompt, 0, *bound(len(prompt)))]
        while len(ids) < new:
            ids.append(step(ids[-1:], len(prompt) + len(ids) - 1, *one_token))
        return ids

    return generate


if __name__ == "__main__":
    serve(lambda: engine(sys.argv[1], int(sys.argv[2])))
