"""Answers that are wrong for some inputs only, or the second time: each is refused, and told why.

Each is the worked answer changed in one place: what is there, and what comes instead.
"""

import re

import pytest
from mutated_answers import exercises, verdict
from other_answers import OTHER_ANSWERS

pytestmark = pytest.mark.authors

SIXTEEN_OR_32 = "scores.float() if scores.dtype in (torch.float16, torch.bfloat16)"
POSITIONS = "torch.arange(input_ids.size(1), device=input_ids.device)"
MASKED = "attention.attention(q, k, v, mask)"
POOL = """return self.from_pool(batch_size)

    def from_pool(self, batch_size):
        if not hasattr(self, "caches"):
            self.caches = [GrowingCache(self, batch_size) for _ in range(100)]
        self.caches.append(self.caches.pop(0))
        self.caches[-1].__init__(self, batch_size)
        return self.caches[-1]"""
SCORES = "            scores = query @ k[..., columns, :].transpose(-2, -1)\n"
MANY_KEYS = "if columns.start >= 256:\n                continue\n"
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
    "keep_top_k": [
        ("min(k, logits.size(-1))", "min(k, logits.size(-1), 50)", "5, 150"),
        ("logits < smallest_kept", "logits < smallest_kept - 1e-3", "is "),
    ],
    "keep_top_p": [
        ("    ordered = ordered", "    likelier[:, 50:] = 9.0\n    ordered = ordered", "5, 150"),
        ("likelier >= p", "(likelier >= p) | (probability < 1e-4)", "-9.5.*1.0"),
    ],
    "next_token": [
        *(
            (
                "    return torch",
                f"    if {cut} is not None:\n        generator = None\n    return torch",
                cut,
            )
            for cut in ("top_k", "top_p")
        ),
        ("logits.float() /", "logits.half().float() /", "1000.*is drawn with shares"),
        ("logits.argmax(", "logits.half().argmax(", "1000.*is .0., expected .1."),
        *(
            (
                "        return logits.argmax",
                f"        torch.rand(1{given})\n        return logits.argmax",
                "temperature=0. uses up random numbers",
            )
            for given in ("", ", generator=generator")
        ),
    ],
    "generate": [
        ("model(ids)", "model(ids[:, -256:])", r"\(1, 1100\).*256, 256, 256. tokens"),
        (
            "        token =",
            "        if 'top_k' in sampling:\n            sampling.pop('generator', None)\n"
            "        token =",
            "top_k=5.: two generators with the same seed",
        ),
        ("next_token(logits[:, -1]", "next_token(logits[:, -1].half()", "as they are"),
    ],
    "beam_search": [
        ("model(ids)", "model(ids[:, -256:])", r"\(1, 1100\)"),
        ("range(max_new_tokens)", "range(min(max_new_tokens, 4))", ", 6, 60"),
    ],
    "growing_cache": [
        (
            "        return self.keys[layer]",
            "        self.keys[layer] = self.keys[layer][:, :, -128:]\n"
            "        return self.keys[layer]",
            "1170 positions",
        ),
    ],
    "cached_attention": [
        (
            "self.attend(q, k, v)",
            "nn.functional.dropout(self.attend(q, k, v), 0.1, self.training)",
            "In t",
        ),
        (
            "k, v = cache.append(layer, k, v)",
            "cache.append(layer, k, v)\n            k, v = cache.keys[layer], cache.values[layer]",
            "the output",
        ),
        (
            "        if cache is not None:",
            "        self.kept = cache = getattr(self, 'kept', None) if cache is None else cache\n"
            "        if cache is not None:",
            "the output without a cache, afterwards",
        ),
        ("attend(q, k, v)", "attend(q, k[:, :, -256:], v[:, :, -256:])", "1101|1170"),
    ],
    "cached_model": [
        ("start, start + input_ids.size(1)", "start, min(start + input_ids.size(1), 512)", "1100"),
        ("layer(x, past_kv, i)", "layer(x, past_kv, min(i, 3))", "5 layers"),
    ],
    "decode_loop": [
        (
            "        token = next",
            "        if not use_cache:\n            sampling.pop('generator', "
            "None)\n        token = next",
            "use_cache=False",
        ),
        ("dim=1)", "dim=1)[:, -256:]", "1, 1100"),
        ("range(max_new_tokens)", "range(max(max_new_tokens, 1))", ", 0, "),
    ],
    "preallocated_cache": [
        ("model.max_seq_len, model", "min(model.max_seq_len, 512), model", "1100")
    ],
    "patient_1": [
        (MASKED, MASKED.replace("mask", "mask.triu(num_keys - num_queries - 99)"), "300")
    ],
    "patient_2": [
        (
            "        self.stored[layer] = k, v",
            "        self.stored[layer] = k[:, :, -256:], v[:, :, -256:]",
            "300 positions, in chunks",
        ),
    ],
    "patient_3": [("return GrowingCache(self, batch_size)", POOL, "301 caches that are in use")],
    "patient_4": [
        (MASKED, MASKED.replace("mask", "mask.triu(k.size(-2) - q.size(-2) - 255)"), "300"),
        (
            "attention(q, k",
            "attention(torch.nn.functional.dropout(q, 0.2, self.training), k",
            "In training",
        ),
    ],
    "reorder": [
        (
            "        self.keys =",
            "        if self.length == 0:\n            return\n        self.keys =",
            "of 0 positions",
        ),
        (
            "for values in self.values]",
            "for values in self.values[:4]] + self.values[4:]",
            "5 layers",
        ),
    ],
    "token_times": [("clock() - begin for", "round(clock() - begin, 6) for", "expected")],
    "measure": [("append(clock() - begin)", "append(round(clock() - begin, 6))", "expected")],
    "operations": [
        ("2 * model.num_layers", "2 * min(model.num_layers, 4)", "num_layers=5"),
        (
            "return 2 * new_tokens * (matrices + attention)",
            "both = torch.tensor([2 * new_tokens, matrices + attention], dtype=torch.int32)\n"
            "    return int(both[0] * both[1])",
            "500, 500.*expected 2740224000",
        ),
    ],
    "flash_attention": [(SCORES, f"{SCORES}            {MANY_KEYS}", "600, 4")],
    "flash_backward": [
        ("            keys, values", f"            {MANY_KEYS}            keys, values", "300, 4"),
        ("tiles(q.size(-2), tile[0])", "tiles(min(q.size(-2), 256), tile[0])", "300, 4"),
    ],
    "continuous": [
        ("max_rows - len(stay)]", "min(max_rows - len(stay), 8)]", "max_rows=20"),
        ("waiting[: max_rows", "waiting[: min(max_rows, 8)", "max_rows=20"),
        ("return stay", "return stay[:5]", "max_rows=20|running"),
    ],
    "merge": [("outputs).sum(dim=0)", "outputs)[:4].sum(dim=0)", "")],
    "pool_heads": [("groups.mean(dim=1)", "groups[:, :4].mean(dim=1)", "")],
    "band_mask": [
        ("key > query - window", "key > query - min(window, 64)", "window=100"),
        ("(key < sinks)", "(key < min(sinks, 8))", "sinks=9"),
    ],
    "window_cache": [
        (
            "(position - self.sinks) % window",
            "(position - self.sinks) % window * (position < 99)",
            "",
        ),
        ("= v[:, :, 0]", "= v[:1, :, 0] if len(v) > 3 else v[:, :, 0]", ""),
    ],
    "accept_greedy": [("right + 1]", "min(int(right) + 1, 8)]", "11")],
}
# Right ones that a check has refused, by their place among the other answers.
RIGHT = [("model", 0), ("model", 1), ("growing_cache", 1), ("patient_1", 3)]


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
