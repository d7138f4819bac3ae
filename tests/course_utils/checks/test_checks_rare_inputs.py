"""Answers that are wrong for some inputs only, or the second time: each is refused, and told why.

Each is the worked answer changed in one place: what is there, and what comes instead.
"""

import re

import pytest
from mutated_answers import exercises, verdict
from other_answers import OTHER_ANSWERS

SIXTEEN_OR_32 = "scores.float() if scores.dtype in (torch.float16, torch.bfloat16)"
POSITIONS = "torch.arange(input_ids.size(1), device=input_ids.device)"
KEPT = f"        if not hasattr(self, 'kept'):\n            self.kept = {POSITIONS}\n"

WRONG = {
    "softmax": [
        ("scores.float() if", "scores.detach().float() if", "16.* has no gradient"),
        ("x.amax(", "x[..., :1000].amax(", "tensor .1100,.*NaN"),
        (SIXTEEN_OR_32, f"scores.data if scores.dtype == torch.float32 else {SIXTEEN_OR_32}", "no"),
        (
            "    row_max = x",
            "    if x.dim() == 4:\n        return torch.softmax(x, 1)\n    row_max = x",
            "2, 3, 4, 5",
        ),
    ],
    "causal_mask": [
        ("num_keys - num_queries, num", "num_keys - num_queries - (num_keys == 33), num", "20, 33"),
        ("    key", "    if num_keys > 2048:\n        num_keys = 2048\n    key", "3000"),
    ],
    "attention": [
        *(("-math.inf)", f"{low})", "can still win") for low in ("-1e5", "-1e6", "-1e9")),
        ("mask) @ v", "mask)[..., :8] @ v[..., :8, :]", "attention.*300"),
        (
            "    scores = (q",
            "    q = q.data if q.dtype == torch.float32 else q\n    scores = (q",
            "gra",
        ),
        ("scores, dim=-1)", "scores, dim=min(3, scores.dim() - 1))", "2, 1, 3, 3, 4"),
    ],
    "multi_head": [
        (
            "attention(q, k, v, mask)",
            "attention(nn.functional.dropout(q, 0.1, self.training), k, v, mask)",
            "In training.*Nothing is random",
        ),
        (
            "causal_mask(x.size(1), x.size(1), x.device)",
            "causal_mask(256, 256, x.device)[: x.size(1), : x.size(1)]",
            "1, 1100, 6.* raised RuntimeError",
        ),
        (
            "        q, k",
            "        x = x if len(x) < 4 else x[:1].expand_as(x)\n        q, k",
            "5, 6, 6",
        ),
    ],
    "layer_norm": [
        (
            "x.mean(dim=-1, keepdim=True)",
            "x.mean(dim=-1 if x.dim() < 4 else (-2, -1), keepdim=True)",
            "2, 3, 2, 4",
        ),
        (
            "    average",
            "    if x.dtype == torch.float32:\n        x = x.data\n    average",
            "gradient",
        ),
    ],
    "feed_forward": [
        (
            "        return self.fc2(torch.relu(self.fc1(x)))",
            "        if not hasattr(self, 'kept') or self.kept.shape != x.shape:\n"
            "            self.kept = self.fc2(torch.relu(self.fc1(x)))\n        return self.kept",
            "Keep nothing",
        ),
        (
            "        return",
            "        x = x if len(x) < 4 else x[:1].expand_as(x)\n        return",
            "5, 3",
        ),
    ],
    "decoder_layer": [
        ("nn.Dropout(dropout)", "nn.Dropout(min(dropout, 0.3))", "dropout=0.6"),
        (
            "        x = x + self.dropout(self.attention(self.norm1(x)))\n        return x + "
            "self.dropout(self.feed_forward(self.norm2(x)))",
            "        kept = self.dropout(torch.ones_like(x))\n"
            "        x = x + kept * self.attention(self.norm1(x))\n"
            "        return x + kept * self.feed_forward(self.norm2(x))",
            "in the same places",
        ),
    ],
    "model": [
        (
            f"        positions = {POSITIONS}",
            f"{KEPT}        positions = self.kept",
            "Keep nothing",
        ),
        (
            f"        positions = {POSITIONS}",
            f"{KEPT}        positions = self.kept[: input_ids.size(1)]",
            "Keep nothing",
        ),
        (
            "arange(input_ids.size(1), device=input_ids.device)",
            "arange(256)[: input_ids.size(1)]",
            "1100",
        ),
        ("in self.layers:", "in self.layers[:4]:", "num_layers=5"),
    ],
}
# Right ones that a check has refused, by their place among the other answers.
RIGHT = [("model", 0), ("model", 1)]


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [(name, *change) for name, changes in WRONG.items() for change in changes],
)
def test_what_is_wrong_for_some_inputs_only_is_refused(name, old, new, words):
    assert old in exercises()[name].answer
    word, said = verdict(name, exercises()[name].answer.replace(old, new))
    assert word == "refused", said
    assert re.search(words, said), said


@pytest.mark.parametrize(("name", "number"), RIGHT)
def test_what_is_right_in_another_way_is_accepted(name, number):
    named = "import torch.nn.functional as F\n"
    assert verdict(name, named + OTHER_ANSWERS[name][number])[0] == "accepted"
