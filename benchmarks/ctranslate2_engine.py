"""CTranslate2 in float32, in a process without PyTorch.

    python ctranslate2_engine.py FOLDER THREADS

CTranslate2 and PyTorch both bring an OpenMP runtime, and get in each other's way: with PyTorch in
the same process, CTranslate2 with two threads took up to fifteen times as long for a token of a
small model.
"""

import sys

import ctranslate2
from serve import Generate, serve


def engine(folder: str, threads: int) -> Generate:
    peer = ctranslate2.Generator(
        folder, compute_type="float32", inter_threads=1, intra_threads=threads
    )

    def generate(prompt: list[int], new: int) -> list[int]:
        tokens = [str(token) for token in prompt]
        options = {"max_length": new, "include_prompt_in_result": False, "end_token": []}
        return peer.generate_batch([tokens], **options)[0].sequences_ids[0]

    return generate


if __name__ == "__main__":
    serve(lambda: engine(sys.argv[1], int(sys.argv[2])))
