"""Write the generated files of data/: `python tests/support/make_data.py`.

Test cases: the expected logits are float64, from the two implementations in `reference.py`, which
must agree to 1e-9; nothing of `course_utils` that computes logits takes part. Cached logits are the
same numbers: a cache may save work, not change results.
Stories: the first of the held-out set, and a sample of what the model was trained on.
"""

import itertools
import json
import random
import textwrap
from pathlib import Path

import numpy as np
import torch
from reference import gpt2_logits, loop_logits

from course_utils.stories import Tokenizer, held_out_stories, make_story

DATA = Path(__file__).resolve().parents[2] / "data"
SHAPES = [(1, 1), (1, 2), (1, 5), (1, 11), (2, 4), (2, 9), (3, 7), (4, 6), (1, 24), (1, 96)]
DECIMALS = 5
NUM_HELD_OUT = 60


def expected_logits(state, rows, num_heads):
    by_loop = [loop_logits(state, ids, num_heads) for ids in rows]
    by_gpt2 = [gpt2_logits(state, ids, num_heads) for ids in rows]
    gap = max(np.abs(a - b).max() for a, b in zip(by_loop, by_gpt2, strict=True))
    if gap > 1e-9:
        raise SystemExit(f"The two reference implementations differ by {gap:.2g}.")
    return np.round(by_loop, DECIMALS).tolist()


def test_cases():
    state = torch.load(DATA.parent / "model_state_dict.pt", weights_only=True)
    num_heads = json.loads((DATA / "model_config.json").read_text())["num_heads"]
    tokenizer = Tokenizer()
    rng = random.Random("test cases")
    cases = []
    for batch, seq_len in SHAPES:
        stories = [make_story(rng, 128, filler=0.2).words for _ in range(batch)]
        rows = [tokenizer.encode(words[:seq_len]) for words in stories]
        logits = expected_logits(state, rows, num_heads)
        keys = ("no_cache", "with_cache", "sequential")
        cases.append({"input_ids": rows} | {f"expected_logits_{key}": logits for key in keys})
    return json.dumps(cases, separators=(",", ":")) + "\n"


def held_out():
    stories = itertools.islice(held_out_stories(seed=0), NUM_HELD_OUT)
    lines = [
        {"text": " ".join(story.words), "questions": [vars(q) for q in story.questions]}
        for story in stories
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def sample():
    tokenizer = Tokenizer()
    rng = random.Random("sample")
    stories = [make_story(rng, length) for length in (64, 128, 128, 256, 256, 512)]
    texts = [tokenizer.decode(tokenizer.encode(story.words[1:-1])) for story in stories]
    return "\n\n".join(textwrap.fill(text, 100) for text in texts) + "\n"


def write_whole(name, text):
    part = DATA / f"{name}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(DATA / name)
    print(f"{name}: {len(text) / 1e6:.2f} MB")


def main():
    write_whole("sample_stories.txt", sample())
    write_whole("held_out_stories.jsonl", held_out())
    write_whole("test_cases.json", test_cases())


if __name__ == "__main__":
    main()
