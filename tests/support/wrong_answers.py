"""Wrong answers to the exercises of 01 to 06 that have passed, or look as if they could.

Each is a whole text, or the worked answer changed in one place: the words that are there, and those
that come instead.
"""

from collections.abc import Sequence

WRONG_ANSWERS = {
    "softmax": [
        ("x.amax(dim=-1, keepdim=True)", "x.max()"),
        ("scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores", "scores"),
        ("scores.float() if", "scores if not"),
        ("    x = scores.float()", "    scores = scores.detach()\n    x = scores.float()"),
        ("weights = torch.exp(x - row_max)", "weights = x.sub_(row_max).exp()"),
        ("(total == 0, 1.0)", "(total < 1e-30, 1.0) + 1e-9"),
        ("(row_max == -math.inf, 0.0)", "(row_max < -100, 0.0)"),
        ("dim=-1", "dim=0"),
    ],
    "causal_mask": [
        ("(num_keys, device=device)", "(num_keys)"),
        ("num_keys, device=device)\n    key", "num_keys)\n    key"),
        ("num_keys - num_queries, num_keys", "num_queries"),
        ("<=", "<"),
        (
            "key_position[None, :] <= query_position[:, None]",
            "(key_position[None, :] <= query_position[:, None]).float()",
        ),
    ],
    "attention": [
        *(("(~mask, -math.inf)", f"(~mask, {low})") for low in ("-20.0", "-100.0", "-1e4", "-1e9")),
        (
            "return torch.softmax(scores, dim=-1)",
            "return torch.softmax(scores.float(), dim=-1).to(q.dtype)",
        ),
        ("q / math", "q.float() / math"),
        ("(q / math.sqrt(q.size(-1)))", "q.div_(math.sqrt(q.size(-1)))"),
        ("math.sqrt(q.size(-1))", "math.sqrt(3)"),
        ("mask) @ v", "mask).detach() @ v"),
        ("mask) @ v", "None) @ v"),
        ("if mask is not None", "if mask is not None and mask.size(0) == mask.size(1)"),
        """
def attention_weights(q, k, mask=None):
    weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)), dim=-1)
    if mask is not None:
        weights = weights * mask
        weights = weights / weights.sum(-1, keepdim=True)
    return weights

def attention(q, k, v, mask=None):
    return attention_weights(q, k, mask) @ v
""",
    ],
    "multi_head": [
        ("        q, k, v = (self", "        x *= 2\n        q, k, v = (self"),
        (", x.device)", ")"),
        ("self.W_v)", "self.W_k)"),
        (
            "self.W_o(self.merge_heads(attention(q, k, v, mask)))",
            "self.merge_heads(attention(q, k, v, mask))",
        ),
        ("attention(q, k, v, mask)", "attention(q, k, v)"),
        (
            "attention(q, k, v, mask)",
            "nn.functional.dropout(attention(q, k, v, mask), 0.1, self.training)",
        ),
        ("attention(q, k, v, mask)", "attention(q.detach(), k, v, mask)"),
        (
            "x.view(batch, seq_len, self.num_heads, d_model // self.num_heads).transpose(1, 2)",
            "x.view(batch, self.num_heads, seq_len, d_model // self.num_heads)",
        ),
        ("num_heads: int = 1", "num_heads: int = 3"),
    ],
    "layer_norm": [
        (
            "x.var(dim=-1, keepdim=True, unbiased=False)",
            "(x * x).mean(-1, keepdim=True) - average**2",
        ),
        (
            "x.var(dim=-1, keepdim=True, unbiased=False)",
            "x.float().var(dim=-1, keepdim=True, unbiased=False)",
        ),
        (", unbiased=False", ""),
        ("eps: float = 1e-5", "eps: float = 1e-6"),
        ("eps: float = 1e-5", "eps: float = 1e-8"),
        ("torch.sqrt(variance + eps)", "(torch.sqrt(variance) + eps)"),
        ("torch.sqrt(variance + eps)", "torch.sqrt(variance.clamp(min=eps))"),
        ("torch.sqrt(variance + eps)", "torch.sqrt(variance.detach() + eps)"),
        ("(x - average)", "x.sub_(average)"),
        ("variance + eps", "variance + 1e-5"),
    ],
    "feed_forward": [
        ("        return", "        x *= 2\n        return"),
        ("torch.relu", "nn.functional.gelu"),
        ("torch.relu(self.fc1(x))", "self.fc1(torch.relu(x))"),
        ("self.fc1(x)", "self.fc1(x.detach())"),
        ("self.fc1(x)", "self.fc1(x.relu_())"),
        ("(d_ff, d_model)", "(d_ff, d_model, bias=False)"),
        ("torch.relu(self.fc1(x))", "self.fc1(x).clamp(0, 6)"),
    ],
    "decoder_layer": [
        ("self.dropout(self.attention(self.norm1(x)))", "self.attention(self.norm1(x))"),
        ("self.dropout(self.feed_forward(self.norm2(x)))", "self.feed_forward(self.norm2(x))"),
        (
            "x = x + self.dropout(self.attention(self.norm1(x)))",
            "x = self.dropout(x + self.attention(self.norm1(x)))",
        ),
        (
            "return x + self.dropout(self.feed_forward(self.norm2(x)))",
            "return x + self.dropout(self.dropout(self.feed_forward(self.norm2(x))))",
        ),
        ("nn.Dropout(dropout)", "nn.Dropout(0.1)"),
        ("nn.Dropout(dropout)", "nn.Dropout(1 - dropout)"),
        ("dropout: float = 0.1", "dropout: float = 0.0"),
        ("x = x + self", "x += self"),
        ("self.attention(self.norm1(x))", "self.attention(self.norm1(x.detach()))"),
        ("self.norm2(x)", "self.norm1(x)"),
        ("self.attention(self.norm1(x))", "self.norm1(self.attention(x))"),
    ],
    "model": [
        (
            "return self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))",
            "return self.token_embedding(input_ids) + self.pos_embedding(positions)",
        ),
        (
            "self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))",
            "self.dropout(self.token_embedding(input_ids)) + self.pos_embedding(positions)",
        ),
        (
            "(self.token_embedding(input_ids) + self.pos_embedding(positions))",
            "(self.token_embedding(input_ids)) + self.dropout(self.pos_embedding(positions))",
        ),
        ("x = self.embed(input_ids)", "x = self.dropout(self.embed(input_ids))"),
        ("self.norm(x)", "self.norm(self.dropout(x))"),
        ("input_ids.size(1), device=input_ids.device", "input_ids.size(1)"),
        ("arange(input_ids.size(1)", "arange(1, input_ids.size(1) + 1"),
        ("in self.layers:", "in self.layers[:-1]:"),
        ("in self.layers:", "in self.layers[:1]:"),
        ("self.norm(x)", "self.norm(x.detach())"),
        ("self.output_projection(self.norm(x))", "self.output_projection(x)"),
    ],
    "keep_top_k": [
        ("logits < smallest_kept", "logits < smallest_kept.min()"),
        ("<", "<="),
        ("min(k, logits.size(-1))", "min(k, 5)"),
        ("masked_fill(", "masked_fill_("),
        ("-math.inf", "-1e9"),
    ],
    "keep_top_p": [
        ("likelier >= p", "likelier + probability > p"),
        ("likelier >= p", "likelier > p"),
        ("ordered = ordered.masked", "ordered = logits.masked"),
        ("torch.empty_like(logits).scatter(-1, token, ordered)", "ordered"),
        (
            "torch.empty_like(logits).scatter(-1, token, ordered)",
            "logits.scatter_(-1, token, ordered)",
        ),
        ("probability.cumsum(-1)", "probability.cumsum(0)"),
        ("logits.sort(descending=True)", "logits.sort()"),
    ],
    "next_token": [
        *(
            (
                "    return torch",
                f"    generator = None if {cut} is not None else generator\n    return torch",
            )
            for cut in ("top_k", "top_p")
        ),
        (", generator=generator)", ")"),
        ("logits.float() / temperature", "logits.float()"),
        ("logits.float() / temperature", "logits.float() * temperature"),
        (
            "    if top_k is not None",
            "    generator = generator or torch.Generator().manual_seed(0)\n"
            "    if top_k is not None",
        ),
        (
            "torch.multinomial(softmax(logits), 1, generator=generator).squeeze(-1)",
            "torch.multinomial(softmax(logits), 1, generator=generator)[0].expand(len(logits))",
        ),
        (
            "torch.multinomial(softmax(logits), 1, generator=generator).squeeze(-1)",
            "torch.multinomial(softmax(logits[0]), len(logits), True, generator=generator)",
        ),
        (
            "torch.multinomial(softmax(logits), 1, generator=generator).squeeze(-1)",
            "logits.argmax(-1)",
        ),
        (".squeeze(-1)", ".squeeze()"),
        ("temperature: float = 1.0", "temperature: float = 0.0"),
        ("softmax(logits), 1", "softmax(2 * logits), 1"),
        ("softmax(logits), 1", "softmax(softmax(logits)), 1"),
        """
def next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return logits.argmax(-1)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return torch.multinomial(softmax(logits / temperature), 1, generator=generator).squeeze(-1)
""",
        """
def next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    return torch.multinomial(softmax(logits), 1, generator=generator).squeeze(-1)
""",
    ],
    "generate": [
        ("next_token(logits[:, -1], temperature, **sampling)", "logits[:, -1].argmax(-1)"),
        ("next_token(logits[:, -1]", "next_token(torch.softmax(logits[:, -1], -1)"),
        ("next_token(logits[:, -1]", "next_token(2 * logits[:, -1]"),
        ("next_token(logits[:, -1]", "next_token(logits[:, -1].clamp(min=0)"),
        ("temperature, **sampling)", "temperature, generator=sampling.get('generator'))"),
        ("temperature, **sampling)", "temperature)"),
        ("temperature, **sampling)", "1.0 if temperature else 0, **sampling)"),
        ("temperature, **sampling)", "temperature, **{'top_k': 3} | sampling)"),
        ("        logits, _", "        sampling.pop('top_p', None)\n        logits, _"),
        ("token[:, None]]", "token[:1, None].expand(len(ids), 1)]"),
        ("model(ids)", "model(ids[:, -2:])"),
        ("token[:, None]]", "logits[:, -1].argmax(-1, keepdim=True)]"),
        ("range(max_new_tokens)", "range(max_new_tokens + 1)"),
    ],
    "beam_search": [
        ("torch.log_softmax(logits[:, -1].float(), dim=-1)", "logits[:, -1].float()"),
        (
            "torch.log_softmax(logits[:, -1].float(), dim=-1)",
            "torch.softmax(logits[:, -1].float(), dim=-1)",
        ),
        ("scores[:, None] + torch", "torch"),
        ("ids[beam]", "ids[: len(beam)]"),
        ("return ids, scores", "return ids, scores / max_new_tokens"),
        ("return ids, scores", "return ids, scores.exp()"),
        ("return ids, scores", "return ids.flip(0), scores.flip(0)"),
        ("return ids, scores", "return ids[:1], scores[:1]"),
        (", device=input_ids.device", ""),
    ],
    "growing_cache": [
        (
            "        self.keys[layer] = torch",
            "        if self.length == 0:\n            return k, v\n"
            "        self.keys[layer] = torch",
        ),
        ("return self.keys[layer], self.values[layer]", "return k, v"),
        ("return self.keys[0].size(2)", "return 2 * self.keys[0].size(2)"),
        ("return self.keys[0].size(2)", "return self.keys[1].size(2)"),
        ("[self.values[layer], v]", "[self.values[0], v]"),
        ("[self.keys[layer], k]", "[k, self.keys[layer]]"),
        ("dtype=model.dtype", "dtype=torch.float32"),
        (", device=model.device", ""),
        (
            "self.values[layer] = torch.cat([self.values[layer], v], dim=2)",
            "self.values[layer] = torch.cat([self.values[layer], v.mul_(1.5)], dim=2)",
        ),
    ],
    "cached_attention": [
        ("k, v = cache.append(layer, k, v)", "cache.append(layer, k, v)"),
        ("cache.append(layer, k, v)", "cache.append(layer, v, k)"),
        ("cache.append(layer, k, v)", "cache.append(0, k, v)"),
        ("cache.append(layer, k, v)", "cache.append(layer, q, v)"),
        ("if cache is not None:", "if cache is not None and cache.length:"),
        ("self.attend(q, k, v)", "attention.attention(q, k, v)"),
        ("self.attend(q, k, v)", "attention.attention(q, k, v, causal_mask(q.size(2), k.size(2)))"),
        ("self.attend(q, k, v)", "self.attend(q, k.detach(), v)"),
        (
            "self.attend(q, k, v)",
            "nn.functional.dropout(self.attend(q, k, v), 0.1, self.training)",
        ),
        ("        q, k, v", "        x *= 2\n        q, k, v"),
        ("layer: int = 0", "layer: int = 1"),
    ],
    "cached_model": [
        ("start + input_ids.size(1), device=input_ids.device", "start + input_ids.size(1)"),
        ("0 if past_kv is None else past_kv.length", "0"),
        (
            "0 if past_kv is None else past_kv.length",
            "0 if past_kv is None else past_kv.length + 1",
        ),
        (
            "0 if past_kv is None else past_kv.length",
            "0 if past_kv is None else max(past_kv.length - 1, 0)",
        ),
        ("if use_cache and past_kv is None", "if use_cache"),
        ("layer(x, past_kv, i)", "layer(x, past_kv, 0)"),
        ("layer(x, past_kv, i)", "layer(x, past_kv, i // 2)"),
        (
            "self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))",
            "self.token_embedding(input_ids) + self.pos_embedding(positions)",
        ),
        ("self.norm(x)", "self.norm(self.dropout(x))"),
        ("self.norm(x)), past_kv", "self.norm(x)), None"),
        ("self.norm(x)", "self.norm(x[:, -1:])"),
        ("self.norm(x)", "self.norm(x.detach())"),
    ],
    "decode_loop": [
        ("ids = token[:, None] if", "ids = logits[:, -1].argmax(-1, keepdim=True) if"),
        ("ids = token[:, None] if use_cache else torch", "ids = torch"),
        ("next_token(logits[:, -1], **sampling)", "next_token(logits[:, -1], temperature=0)"),
        ("next_token(logits[:, -1]", "next_token(logits[:, -1].softmax(-1)"),
        ("next_token(logits[:, -1]", "next_token(logits[:, 0]"),
        ("logits, past_kv = model", "logits, _ = model"),
        ("ids = token[:, None] if use_cache", "ids = token[:, None] if True"),
        ("past_kv=past_kv, use", "past_kv=past_kv if ids.size(1) == 1 else None, use"),
        ("torch.cat([ids, token", "torch.cat([input_ids, token"),
    ],
    "preallocated_cache": [
        ("self.lengths[layer] = end", "self.lengths[0] = end"),
        ("self.values[layer, :, :, :end]\n", "self.values[layer]\n"),
        ("self.keys[layer, :, :, :end], self", "self.keys[layer, :, :, :end].clone(), self"),
        ("self.keys[layer, :, :, start:end] = k", "self.keys[:, :, :, start:end] = k"),
        ("self.keys[layer, :, :, start:end] = k", "self.keys[layer, :, :, : k.size(2)] = k"),
        ("self.lengths[layer], self.lengths[layer] + k", "self.length, self.length + k"),
        (
            "model.dtype, device=model.device)\n        self.values",
            "model.dtype)\n        self.values",
        ),
        ("return self.lengths[0]", "return self.lengths[1]"),
        ("self.values.nbytes", "0"),
    ],
    "patient_1": [
        "Cured1 = DecoderOnlyTransformer",
        "class Cured1(WithAttention):\n    attention_class = MultiHeadAttention",
        "Cured1 = Patient1",
        ("[-num_queries:]", "[:num_queries]"),
        ("v, mask)", "v)"),
        (", q.device", ""),
    ],
    "patient_2": [
        "Cured2 = DecoderOnlyTransformer",
        "class Cured2(WithCache):\n    cache_class = GrowingCache",
        "class CuredCache2(GrowingCache, Cache2):\n    pass\n\n\n"
        "class Cured2(WithCache):\n    cache_class = CuredCache2",
        ("if layer == 0:", "if layer >= 0:"),
        ("if layer == 0:", "if layer == 1:"),
        ("self.stored[layer] = k, v", "self.stored[0] = k, v"),
        ("self.stored[layer] = k, v", "self.stored[layer] = k, k"),
    ],
    "patient_3": [
        "Cured3 = DecoderOnlyTransformer",
        "class Cured3(DecoderOnlyTransformer):\n    pass",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        cache = super().new_cache(batch_size)
        cache.keys = [k[:, :, :0] for k in cache.keys]
        cache.values = [v[:, :, :0] for v in cache.values]
        return cache
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        if not hasattr(self, "caches"):
            self.caches = [GrowingCache(self, batch_size) for _ in range(2)]
        cache = self.caches.pop(0)
        cache.__init__(self, batch_size)
        self.caches.append(cache)
        return cache
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        self.__dict__.setdefault("kept", {})
        if batch_size not in self.kept:
            self.kept[batch_size] = GrowingCache(self, batch_size)
        return self.kept[batch_size]
""",
    ],
    "patient_4": [
        "Cured4 = DecoderOnlyTransformer",
        "class Cured4(WithAttention):\n    attention_class = MultiHeadAttention",
        "Cured4 = Patient4",
        ("q.size(-2), k.size(-2), q", "k.size(-2), k.size(-2), q"),
        ("mask = ", "mask = None if q.size(-2) == 1 or q.size(-2) > 2 else "),
        (", q.device", ""),
    ],
    "reorder": [
        ("keys[rows]", "keys[rows.sort().values]"),
        ("self.keys = [keys[rows] for keys in self.keys]", "self.keys[0] = self.keys[0][rows]"),
        ("values[rows]", "values[: len(rows)]"),
        ("self.batch_size = len(rows)", "pass"),
        ("values[rows]", "values[rows.unique()]"),
        ("keys[rows]", "keys[rows.argsort()]"),
    ],
    "token_times": [
        (
            "    begin = clock()\n    return [clock() - begin for _ in start()]",
            "    tokens = start()\n    begin = clock()\n"
            "    return [clock() - begin for _ in tokens]",
        ),
        ("[clock() - begin for _ in start()]", "[clock() - begin for _ in list(start())]"),
        ("[clock() - begin for _ in start()]", "[clock() for _ in start()]"),
        ("[clock() - begin for _ in start()]", "[timer() - begin for _ in start()]"),
    ],
    "measure": [
        ("    for task in tasks.values():\n        task()\n", ""),
        ("    for task in tasks.values():\n        task()\n", "    next(iter(tasks.values()))()\n"),
        ("append(clock() - begin)", "append(begin - clock())"),
        ("begin = clock()\n            task()", "task()\n            begin = clock()"),
        """
def measure(tasks, rounds, clock=timer):
    seconds = {}
    for name, task in tasks.items():
        task()
        seconds[name] = []
        for _ in range(rounds):
            begin = clock()
            task()
            seconds[name].append(clock() - begin)
    return seconds
""",
    ],
    "operations": [
        ("2 * model.num_layers", "model.num_layers"),
        ("2 * new_tokens * (matrices + attention)", "2 * (new_tokens * matrices + attention)"),
        ("isinstance(module, nn.Linear)", "hasattr(module, 'weight')"),
        ("module.weight.numel()", "sum(p.numel() for p in module.parameters())"),
        ("d_model * all_tokens", "d_model * new_tokens"),
    ],
    "exponent": [
        ("np.log(tokens), np.log(seconds)", "np.log(seconds), np.log(tokens)"),
        ("np.log(seconds)", "seconds"),
        (
            "np.polyfit(np.log(tokens), np.log(seconds), 1)[0]",
            "np.log(seconds[-1] / seconds[0]) / np.log(tokens[-1] / tokens[0])",
        ),
        (", 1)[0]", ", 1)[1]"),
    ],
}


def wrong_sources(
    name: str, worked: str, wrongs: Sequence[str | tuple[str, str]] | None = None
) -> list[str]:
    """The wrong answers to an exercise, as whole texts. Raises ValueError if a place is gone."""
    found = []
    for wrong in WRONG_ANSWERS[name] if wrongs is None else wrongs:
        if not isinstance(wrong, str):
            old, new = wrong
            if old not in worked:
                raise ValueError(f"The worked answer to {name} no longer has {old!r}.")
            wrong = worked.replace(old, new)
        found.append(wrong)
    return found
