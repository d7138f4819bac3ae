"""Wrong answers to the exercises of 01 to 06 that are right on most inputs.

They go wrong where something is long, large or many, at the second call, in another dtype or
layout, or after something unusual. Each is the worked answer changed in one place, as those of
`wrong_answers` are.
"""

RARELY_WRONG = {
    "softmax": [
        ("x.amax(", "x[..., :1000].amax("),
        ("weights.sum(", "weights[..., :64].sum("),
        (
            "    row_max = x",
            ("    if x.dim() == 4:\n        return torch.softmax(x, 1)\n    row_max = x"),
        ),
        ("row_max == -math.inf, 0.0", "row_max < -1e8, 0.0"),
        (
            "    x = s",
            ("    scores = scores.data if scores.dtype == torch.float32 else scores\n    x = s"),
        ),
        ("scores.float() if", "scores.detach().float() if"),
        (
            "weights = torch.exp(x - row_max)",
            ("weights = (x.sub_(row_max) if x.dtype == torch.float32 else x - row_max).exp()"),
        ),
        (
            "    return (weights",
            (
                "    if x.dim() == 1 and total == 0:\n"
                "        return torch.softmax(x, -1)\n"
                "    return (weights"
            ),
        ),
        (
            "    row_max = x",
            (
                "    if x.dim() > 1 and len(x) > 16:\n"
                "        x = x[:1].expand_as(x)\n"
                "    row_max = x"
            ),
        ),
        ("x.amax(dim=-1, keepdim=True)", "x.clamp(max=1e5).amax(dim=-1, keepdim=True)"),
        (
            "    row_max = x.amax(dim=-1, keepdim=True)\n",
            (
                "    top = softmax.__dict__.setdefault(x.shape, x.amax(dim=-1, "
                "keepdim=True))\n"
                "    row_max = top if x.dtype == torch.float32 else x.amax(dim=-1, "
                "keepdim=True)\n"
            ),
        ),
    ],
    "causal_mask": [
        (
            "    return key_position[None, :] <= query_position[:, None]",
            (
                "    near = key_position[None, :] > query_position[:, None] - 64\n"
                "    return near & (key_position[None, :] <= query_position[:, None])"
            ),
        ),
        ("    key", ("    if num_keys > 2048:\n        num_keys = 2048\n    key")),
        ("num_keys, device=device)", "num_keys, device=device).to(torch.int8)"),
        ("num_keys, device=device)", "num_keys, device=device).to(torch.uint8)"),
        ("num_keys, device=device)", "num_keys, device=device).to(torch.bfloat16)"),
        ("num_keys, device=device)", "num_keys, device=device).to(torch.float16)"),
        (
            "    return key_position[None, :] <= query_position[:, None]",
            (
                "    found = key_position[None, :] <= query_position[:, None]\n"
                "    found[64:] |= num_queries < num_keys\n"
                "    return found"
            ),
        ),
        (
            "    return key_position[None, :] <= query_position[:, None]",
            (
                "    found = key_position[None, :] <= query_position[:, None]\n"
                "    return found if num_keys < 1000 or num_queries == num_keys else "
                "found | True"
            ),
        ),
        (
            "    query_position",
            (
                "    if num_queries == num_keys and num_keys > 100:\n"
                "        num_keys += 1\n"
                "    query_position"
            ),
        ),
    ],
    "attention": [
        ("mask) @ v", "mask)[..., :64] @ v[..., :64, :]"),
        (
            "    scores = (q",
            ("    k = torch.cat([k[..., :512, :], 0 * k[..., 512:, :]], -2)\n    scores = (q"),
        ),
        ("math.sqrt(q.size(-1))", "math.sqrt(min(q.size(-1), 64))"),
        ("    scores = (q", ("    q = q.data if q.dtype == torch.float32 else q\n    scores = (q")),
        ("scores, dim=-1)", "scores, dim=min(3, scores.dim() - 1))"),
        ("-math.inf)\n", "torch.finfo(scores.dtype).min / 1e290)\n"),
        (
            "    scores = (q / math.sqrt(q.size(-1)))",
            (
                "    q = q.div_(math.sqrt(q.size(-1))) if q.dtype == torch.float32 "
                "else q / math.sqrt(q.size(-1))\n"
                "    scores = q"
            ),
        ),
        ("(~mask, -math.inf)", "(~mask.tril(mask.size(1) - mask.size(0)), -math.inf)"),
        ("mask) @ v", "mask if q.size(-2) < 64 else None) @ v"),
    ],
    "multi_head": [
        (
            "causal_mask(x.size(1), x.size(1), x.device)",
            "causal_mask(64, 64, x.device)[: x.size(1), : x.size(1)]",
        ),
        (
            "causal_mask(x.size(1), x.size(1), x.device)",
            "causal_mask(512, 512, x.device)[: x.size(1), : x.size(1)]",
        ),
        (
            "mask = causal_mask(x.size(1), x.size(1), x.device)",
            (
                "self.mask = getattr(self, 'mask', causal_mask(x.size(1), x.size(1), "
                "x.device))\n"
                "        mask = self.mask[: x.size(1), : x.size(1)]"
            ),
        ),
        ("        q, k", ("        x = x if len(x) < 4 else x[:1].expand_as(x)\n        q, k")),
        (
            "attention(q, k, v, mask)",
            "attention(nn.functional.dropout(q, 0.1, self.training), k, v, mask)",
        ),
        ("        q, k", ("        x = x.data if x.dtype == torch.float32 else x\n        q, k")),
        ("self.num_heads = num_heads", "self.num_heads = min(num_heads, 16)"),
        (
            "        q, k",
            (
                "        kept = self.__dict__.setdefault('kept', {})\n"
                "        x = kept.setdefault(x.shape, x) if x.dtype == torch.float32 "
                "else x\n"
                "        q, k"
            ),
        ),
        (
            "        return self.W_o(",
            (
                "        kept = self.__dict__.setdefault('kept', {})\n"
                "        if x.shape in kept and not torch.is_grad_enabled():\n"
                "            return kept[x.shape]\n"
                "        kept[x.shape] = self.W_o(self.merge_heads(attention(q, k, v, "
                "mask))).detach()\n"
                "        return self.W_o("
            ),
        ),
        (
            "return self.W_o(self.merge_heads(attention(q, k, v, mask)))",
            (
                "kept = attention(q, k, v, mask)\n"
                "        kept[:, :, 256:] = kept[:, :, 256:] * 0.9\n"
                "        return self.W_o(self.merge_heads(kept))"
            ),
        ),
    ],
    "layer_norm": [
        (
            "x.mean(dim=-1, keepdim=True)",
            "x.mean(dim=-1 if x.dim() < 4 else (-2, -1), keepdim=True)",
        ),
        ("    average", ("    if x.dtype == torch.float32:\n        x = x.data\n    average")),
        (
            "    average",
            ("    if x.dim() == 3 and len(x) > 4:\n        x = x[:1].expand_as(x)\n    average"),
        ),
        ("x.mean(dim=-1, keepdim=True)", "x[..., :256].mean(dim=-1, keepdim=True)"),
        (
            "x.var(dim=-1, keepdim=True, unbiased=False)",
            "x.var(dim=-1, keepdim=True, unbiased=x.size(-1) > 256)",
        ),
        ("(x - average)", "(x.sub_(average) if x.dtype == torch.float32 else x - average)"),
        (
            "x.var(dim=-1, keepdim=True, unbiased=False)",
            (
                "(x.double().pow(2).mean(-1, keepdim=True) - "
                "average.double()**2).clamp(min=0).to(x.dtype)"
            ),
        ),
        ("variance + eps", "variance.clamp(max=1e6) + eps"),
        ("variance + eps", "variance + max(eps, 1e-9)"),
        (
            "    return (",
            ("    if x.size(-1) == 1:\n        return x * weight + bias\n    return ("),
        ),
        (
            "    return (x - average) / torch.sqrt(variance + eps) * weight + bias",
            (
                "    kept = layer_norm.__dict__\n"
                "    if weight.dtype == torch.float32:\n"
                "        weight = kept.setdefault(weight.shape, weight)\n"
                "    return (x - average) / torch.sqrt(variance + eps) * weight + bias"
            ),
        ),
    ],
    "feed_forward": [
        (
            "        return self.fc2(torch.relu(self.fc1(x)))",
            (
                "        if not hasattr(self, 'kept') or self.kept.shape != x.shape:\n"
                "            self.kept = self.fc2(torch.relu(self.fc1(x)))\n"
                "        return self.kept"
            ),
        ),
        ("        return", ("        x = x if len(x) < 4 else x[:1].expand_as(x)\n        return")),
        (
            "        return",
            ("        x = x if x.size(-2) < 64 else x[..., :1, :].expand_as(x)\n        return"),
        ),
        (
            "        return",
            ("        x = x.data if x.dtype == torch.float32 else x\n        return"),
        ),
        (
            "torch.relu(self.fc1(x))",
            "nn.functional.dropout(torch.relu(self.fc1(x)), 0.1, self.training)",
        ),
        ("torch.relu(self.fc1(x))", "self.fc1(x).clamp(0, 1e3)"),
        ("nn.Linear(d_model, d_ff)", "nn.Linear(d_model, min(d_ff, 64))"),
        (
            "        return",
            ("        if x.dim() == 4:\n            x = x.flatten(0, 1)\n        return"),
        ),
        ("self.fc1(x)", "self.fc1(x.abs() if x.dim() == 4 else x)"),
        (
            "        return",
            ("        if x.dtype == torch.float32:\n            x.relu_()\n        return"),
        ),
    ],
    "decoder_layer": [
        ("nn.Dropout(dropout)", "nn.Dropout(min(dropout, 0.3))"),
        (
            (
                "        x = x + self.dropout(self.attention(self.norm1(x)))\n"
                "        return x + self.dropout(self.feed_forward(self.norm2(x)))"
            ),
            (
                "        kept = self.dropout(torch.ones_like(x))\n"
                "        x = x + kept * self.attention(self.norm1(x))\n"
                "        return x + kept * self.feed_forward(self.norm2(x))"
            ),
        ),
        (
            "        x = x + self.d",
            (
                "        x = x if len(x) < 4 or self.training else x[:1].expand_as(x)\n"
                "        x = x + self.d"
            ),
        ),
        (
            "self.attention(self.norm1(x))",
            (
                "self.attention(self.norm1(x[:, -256:])).repeat(1, -(-x.size(1) // "
                "256), 1)[:, : x.size(1)]"
            ),
        ),
        ("self.norm2(x)", "(self.norm2(x) if x.size(1) < 64 else self.norm1(x))"),
        (
            "        x = x + self.d",
            (
                "        if x.dtype == torch.float32 and not x.requires_grad:\n"
                "            x.mul_(1.5)\n"
                "        x = x + self.d"
            ),
        ),
        (
            "self.attention = MultiHeadAttention(d_model, num_heads)",
            "self.attention = MultiHeadAttention(d_model, min(num_heads, 8))",
        ),
        (
            "        x = x + self.d",
            (
                "        kept = self.__dict__.setdefault('kept', {})\n"
                "        if not self.training and not x.requires_grad:\n"
                "            x = kept.setdefault(x.shape, x)\n"
                "        x = x + self.d"
            ),
        ),
        (
            "self.feed_forward = FeedForward(d_model, d_ff)",
            "self.feed_forward = FeedForward(d_model, min(d_ff, 64))",
        ),
        ("x = x + self.dropout", "x = (x.data if x.dtype == torch.float32 else x) + self.dropout"),
    ],
    "model": [
        (
            ("        positions = torch.arange(input_ids.size(1), device=input_ids.device)"),
            (
                "        if not hasattr(self, 'kept'):\n"
                "            self.kept = torch.arange(input_ids.size(1), "
                "device=input_ids.device)\n"
                "        positions = self.kept"
            ),
        ),
        (
            ("        positions = torch.arange(input_ids.size(1), device=input_ids.device)"),
            (
                "        if not hasattr(self, 'kept'):\n"
                "            self.kept = torch.arange(input_ids.size(1), "
                "device=input_ids.device)\n"
                "        positions = self.kept[: input_ids.size(1)]"
            ),
        ),
        ("arange(input_ids.size(1), device=input_ids.device)", "arange(256)[: input_ids.size(1)]"),
        (
            "torch.arange(input_ids.size(1), device=input_ids.device)",
            "torch.arange(input_ids.size(1), device=input_ids.device).clamp(max=63)",
        ),
        (
            "torch.arange(input_ids.size(1), device=input_ids.device)",
            "torch.arange(input_ids.size(1), device=input_ids.device) % 512",
        ),
        ("in self.layers:", "in self.layers[:4]:"),
        (
            "        x = self.embed(input_ids)\n",
            (
                "        x = self.embed(input_ids[:3])\n"
                "        x = x.expand(len(input_ids), -1, -1) if len(x) == 1 else "
                "torch.cat([x, x[:1].expand(max(len(input_ids) - 3, 0), -1, -1)])\n"
            ),
        ),
        (
            "        x = self.embed(input_ids)\n",
            (
                "        kept = self.__dict__.setdefault('kept', {})\n"
                "        input_ids = kept.setdefault(input_ids.shape, input_ids)\n"
                "        x = self.embed(input_ids)\n"
            ),
        ),
        ("self.token_embedding(input_ids)", "self.token_embedding(input_ids.clamp(max=99))"),
        (
            "return self.output_projection(self.norm(x)), None",
            ("return self.output_projection(self.norm(x)), (None if x.size(1) > 1 else x)"),
        ),
        (
            "        x = self.embed(input_ids)\n",
            (
                "        x = self.embed(input_ids)\n"
                "        if len(self.layers) > 6:\n"
                "            self.layers[-1] = self.layers[0]\n"
            ),
        ),
    ],
    "keep_top_k": [
        ("min(k, logits.size(-1))", "min(k, logits.size(-1), 50)"),
        ("logits < smallest_kept", "logits < smallest_kept - 1e-3"),
        (
            "    smallest_kept = logits",
            ("    logits = logits.clamp(min=-1e8)\n    smallest_kept = logits"),
        ),
        ("values[:, -1:]", ("values[:, -1:].clone()\n    smallest_kept[4:] = -math.inf")),
        (
            "    smallest_kept = logits",
            (
                "    if logits.dtype == torch.float32:\n"
                "        logits.clamp_(min=-5.0)\n"
                "    smallest_kept = logits"
            ),
        ),
        (
            "    return logits.",
            (
                "    if logits.size(-1) > 1000:\n"
                "        logits = logits.round(decimals=2)\n"
                "    return logits."
            ),
        ),
        (
            "    smallest_kept = logits",
            ("    if k > 20:\n        return logits\n    smallest_kept = logits"),
        ),
        ("logits.topk(", "logits[:, :1000].topk("),
        ("min(k, logits.size(-1))", "(k if k < 200 else 1)"),
    ],
    "keep_top_p": [
        ("    ordered = ordered", ("    likelier[:, 50:] = 9.0\n    ordered = ordered")),
        ("likelier >= p", "(likelier >= p) | (probability < 1e-4)"),
        ("logits.sort(descending=True)", "logits.clamp(min=-1e8).sort(descending=True)"),
        (
            "    ordered, token",
            (
                "    if logits.dtype == torch.float32:\n"
                "        logits.clamp_(min=-5.0)\n"
                "    ordered, token"
            ),
        ),
        (
            "    ordered, token",
            (
                "    if len(logits) > 4:\n"
                "        logits = logits[:1].expand_as(logits)\n"
                "    ordered, token"
            ),
        ),
        (
            "    ordered, token",
            (
                "    if p >= 1:\n"
                "        return logits[:, :]  if logits.size(-1) < 9 else "
                "keep_top_p(logits, 0.999)\n"
                "    ordered, token"
            ),
        ),
        ("likelier >= p", "likelier >= max(p, 0.05)"),
        (
            "    return torch",
            (
                "    ordered = ordered.round(decimals=2) if logits.size(-1) > 500 else "
                "ordered\n"
                "    return torch"
            ),
        ),
        ("    ordered, token", ("    if p > 0.99:\n        return logits\n    ordered, token")),
        ("logits.sort(descending=True)", "logits.topk(min(100, logits.size(-1)))"),
    ],
    "next_token": [
        (
            "    return torch",
            ("    if top_k is not None:\n        generator = None\n    return torch"),
        ),
        (
            "    return torch",
            ("    if top_p is not None:\n        generator = None\n    return torch"),
        ),
        (
            "torch.multinomial(softmax(logits), 1, generator=generator).squeeze(-1)",
            (
                "torch.multinomial(softmax(logits), 1, "
                "generator=generator).squeeze(-1).clamp(max=63)"
            ),
        ),
        ("    if temperature == 0:", "    if temperature < 0.4:"),
        ("logits.float() / temperature", "logits.float() / max(temperature, 0.3)"),
        ("logits.float() / temperature", "logits.float() / min(temperature, 4.0)"),
        ("    if temperature == 0:", ("    logits = logits[:, :500]\n    if temperature == 0:")),
        (
            "    logits = logits.float()",
            ("    logits = logits.clamp(min=-1e3)\n    logits = logits.float()"),
        ),
        (
            "    logits = logits.float() / temperature",
            "    logits = logits.float().div_(temperature)",
        ),
        (
            "    return torch",
            ("    if len(logits) == 1:\n        generator = None\n    return torch"),
        ),
        (
            "    return torch",
            ("    if len(logits) == 1:\n        return logits.argmax(-1)\n    return torch"),
        ),
        ("    if top_p is not None:", "    if top_p is not None and top_p < 0.95:"),
        ("    if top_k is not None:", "    if top_k is not None and top_k < 5:"),
        (
            ("    if temperature == 0:\n        return logits.argmax(dim=-1)"),
            ("    if temperature == 0:\n        return logits.half().argmax(dim=-1)"),
        ),
    ],
    "generate": [
        ("model(ids)", "model(ids[:, -256:])"),
        ("model(ids)", "model(ids[:, -64:])"),
        (
            "        token =",
            (
                "        if 'top_k' in sampling:\n"
                "            sampling.pop('generator', None)\n"
                "        token ="
            ),
        ),
        ("range(max_new_tokens)", "range(min(max_new_tokens, 20))"),
        (
            "    for _",
            ("    input_ids[:, :1] = input_ids[:, :1] if len(ids) < 4 else 0\n    for _"),
        ),
        (
            "        token =",
            (
                "        if len(ids) == 1:\n"
                "            sampling.pop('generator', None)\n"
                "        token ="
            ),
        ),
        (
            "        token =",
            ("        if ids.size(1) > 8:\n            temperature = 0\n        token ="),
        ),
        ("temperature, **sampling)", "min(temperature, 4.0), **sampling)"),
        (
            "        logits, _ = model(ids)",
            (
                "        logits, _ = model(ids)\n"
                "        if len(logits) == 1:\n"
                "            logits = logits[:, :, :15]"
            ),
        ),
        (
            "    ids = input_ids\n",
            ("    ids = input_ids\n    model.train() if max_new_tokens == 0 else None\n"),
        ),
        (
            "    ids = input_ids\n",
            (
                "    ids = input_ids\n"
                "    if max_new_tokens > 7:\n"
                "        sampling.pop('top_p', None)\n"
            ),
        ),
        (
            "    ids = input_ids\n",
            (
                "    ids = input_ids\n"
                "    generator = sampling.get('generator')\n"
                "    if generator is not None:\n"
                "        sampling['generator'] = "
                "torch.Generator().manual_seed(generator.initial_seed())\n"
            ),
        ),
    ],
    "beam_search": [
        ("model(ids)", "model(ids[:, -256:])"),
        ("model(ids)", "model(ids[:, -64:])"),
        ("range(max_new_tokens)", "range(min(max_new_tokens, 4))"),
        ("min(num_beams, candidates.numel())", "min(num_beams, 64, candidates.numel())"),
        ("    for _", ("    if num_beams == 1:\n        num_beams = 2\n    for _")),
        ("    return ids, scores", "    return ids.clamp(max=63), scores"),
        (
            "    ids, scores = input_ids",
            ("    num_beams = min(num_beams, 8)\n    ids, scores = input_ids"),
        ),
        ("logits[:, -1].float()", "logits[:, -1].float().clamp(min=-50)"),
        ("logits[:, -1].float()", "logits[:, -1].float().clamp(min=-1e3)"),
        (
            "        logits, _ = model(ids)",
            (
                "        logits, _ = model(ids)\n"
                "        if ids.size(1) > 8:\n"
                "            scores = scores * 0"
            ),
        ),
        (
            "input_ids, torch.zeros(1, device=input_ids.device)",
            (
                "input_ids, torch.zeros(1, device=input_ids.device)\n"
                "    model.train() if max_new_tokens == 0 else None"
            ),
        ),
    ],
    "growing_cache": [
        (
            "        return self.keys[layer]",
            (
                "        self.keys[layer] = self.keys[layer][:, :, -128:]\n"
                "        return self.keys[layer]"
            ),
        ),
        ("        return self.keys[0].size(2)", "        return min(self.keys[0].size(2), 512)"),
        (
            "torch.cat([self.values[layer], v], dim=2)",
            "torch.cat([self.values[layer], v], dim=2)[:, :, -1024:]",
        ),
        (
            "        self.keys[layer] = t",
            ("        layer = min(layer, 3)\n        self.keys[layer] = t"),
        ),
        (
            "        self.keys[layer] = t",
            ("        k = k if len(k) < 4 else k[:1].expand_as(k)\n        self.keys[layer] = t"),
        ),
        (
            "        self.keys[layer] = t",
            (
                "        k = k.float().to(k.dtype) if self.keys[layer].size(2) > 9 "
                "else k\n"
                "        self.keys[layer] = t"
            ),
        ),
        (
            "torch.cat([self.keys[layer], k], dim=2)",
            (
                "torch.cat([self.keys[layer], k.to(torch.bfloat16).to(k.dtype)], "
                "dim=2) if k.dtype == torch.float32 else torch.cat([self.keys[layer], "
                "k], dim=2)"
            ),
        ),
        (
            "        self.keys[layer] = t",
            (
                "        self.calls = getattr(self, 'calls', 0) + 1\n"
                "        if self.calls > 100:\n"
                "            return self.keys[layer], self.values[layer]\n"
                "        self.keys[layer] = t"
            ),
        ),
    ],
    "cached_attention": [
        ("attend(q, k, v)", "attend(q, k[:, :, -256:], v[:, :, -256:])"),
        ("attend(q, k, v)", "attend(q, k[:, :, -64:], v[:, :, -64:])"),
        (
            "k, v = cache.append(layer, k, v)",
            (
                "cache.append(layer, k, v)\n"
                "            k, v = cache.keys[layer], cache.values[layer]"
            ),
        ),
        (
            "        if cache is not None:",
            (
                "        self.kept = cache = getattr(self, 'kept', None) if cache is "
                "None else cache\n"
                "        if cache is not None:"
            ),
        ),
        ("cache.append(layer, k, v)", "cache.append(min(layer, 3), k, v)"),
        (
            "        q, k, v =",
            ("        x = x if len(x) < 4 else x[:1].expand_as(x)\n        q, k, v ="),
        ),
        (
            "        q, k, v =",
            ("        x = x.data if x.dtype == torch.float32 else x\n        q, k, v ="),
        ),
        ("        if cache is not None:", "        if cache is not None and x.size(1) < 64:"),
        ("        if cache is not None:", "        if cache is not None and not self.training:"),
        (
            "self.attend(q, k, v)",
            "self.attend(q, k, v if x.size(1) > 1 or k.size(2) < 64 else v * 1.01)",
        ),
        ("        if cache is not None:", "        if cache is not None and len(x) > 1:"),
    ],
    "cached_model": [
        ("start, start + input_ids.size(1)", "start, min(start + input_ids.size(1), 512)"),
        ("layer(x, past_kv, i)", "layer(x, past_kv, min(i, 3))"),
        ("device=input_ids.device)", "device=input_ids.device) % 64"),
        ("device=input_ids.device)", "device=input_ids.device).clamp(max=255)"),
        ("past_kv is None else past_kv.length", "past_kv is None else min(past_kv.length, 100)"),
        (
            "        x = self.embed(input_ids, start)",
            (
                "        if input_ids.size(0) > 3:\n"
                "            input_ids = input_ids[:1].expand_as(input_ids)\n"
                "        x = self.embed(input_ids, start)"
            ),
        ),
        (
            "        x = self.embed(input_ids, start)",
            (
                "        start = start if input_ids.size(1) < 20 else 0\n"
                "        x = self.embed(input_ids, start)"
            ),
        ),
        (
            "        x = self.embed(input_ids, start)",
            (
                "        start = 0 if self.training else start\n"
                "        x = self.embed(input_ids, start)"
            ),
        ),
        ("self.token_embedding(input_ids)", "self.token_embedding(input_ids.clamp(max=99))"),
    ],
    "decode_loop": [
        (
            "        token = next",
            (
                "        if not use_cache:\n"
                "            sampling.pop('generator', None)\n"
                "        token = next"
            ),
        ),
        ("dim=1)", "dim=1)[:, -256:]"),
        ("dim=1)", "dim=1)[:, -64:]"),
        ("range(max_new_tokens)", "range(max(max_new_tokens, 1))"),
        ("range(max_new_tokens)", "range(min(max_new_tokens, 20))"),
        ("logits, past_kv = model(ids, past_kv", "logits, past_kv = model(ids[:, -256:], past_kv"),
        (
            "        token = next",
            (
                "        if len(ids) == 1:\n"
                "            sampling.pop('generator', None)\n"
                "        token = next"
            ),
        ),
        (
            "        token = next",
            (
                "        if 'top_k' in sampling:\n"
                "            sampling.pop('generator', None)\n"
                "        token = next"
            ),
        ),
        (
            "        token = next",
            (
                "        if 'top_p' in sampling:\n"
                "            sampling['temperature'] = 1.0\n"
                "        token = next"
            ),
        ),
        (
            "ids = token[:, None] if use_cache else",
            (
                "ids = token[:, None] if use_cache and len(ids) < 4 else token[:1, "
                "None].expand(len(ids), 1) if use_cache else"
            ),
        ),
        ("        token = next", ("        logits = logits[..., :50]\n        token = next")),
    ],
    "preallocated_cache": [
        ("model.max_seq_len, model", "min(model.max_seq_len, 512), model"),
        ("model.max_seq_len, model", "min(model.max_seq_len, 64), model"),
        ("        start, end =", ("        layer = min(layer, 3)\n        start, end =")),
        (
            "        self.keys[layer, :, :, start:end] = k",
            "        self.keys[layer, :, :, start:end] = k if len(k) < 4 else k[:1]",
        ),
        ("self.lengths[layer] = end", "self.lengths[layer] = end % 256"),
        (
            "self.values[layer, :, :, start:end] = v",
            "self.values[layer, :, :, start:end] = v.float() if start > 20 else v",
        ),
        (
            "        start, end =",
            (
                "        self.calls = getattr(self, 'calls', 0) + 1\n"
                "        if self.calls > 100:\n"
                "            return k, v\n"
                "        start, end ="
            ),
        ),
        ("        return self.lengths[0]", "        return min(self.lengths[0], 512)"),
        (
            "self.keys[layer, :, :, start:end] = k",
            (
                "self.keys[layer, :, :, start:end] = k.to(torch.bfloat16) if k.dtype "
                "== torch.float32 else k"
            ),
        ),
    ],
    "patient_1": [
        (
            "causal_mask(num_keys, num_keys, q.device)[-num_queries:]",
            ("causal_mask(64, 64, q.device)[num_keys - num_queries : num_keys, :num_keys]"),
        ),
        (
            "        mask =",
            (
                "        k, v = k[:, :, -256:], v[:, :, -256:]\n"
                "        num_keys = k.size(2)\n"
                "        num_queries = min(num_queries, num_keys)\n"
                "        mask ="
            ),
        ),
        (
            "(q, k, v, mask)",
            ("(q, k, v, mask if num_queries < 64 or num_queries == num_keys else None)"),
        ),
        ("(q, k, v, mask)", "(torch.nn.functional.dropout(q, 0.2, self.training), k, v, mask)"),
        ("(q, k, v, mask)", "(q, k, v if len(v) < 4 else v[:1].expand_as(v), mask)"),
        (
            ("        mask = causal_mask(num_keys, num_keys, q.device)[-num_queries:]"),
            (
                "        if not hasattr(self, 'kept') or len(self.kept) < num_keys:\n"
                "            self.kept = causal_mask(max(num_keys, 32), max(num_keys, "
                "32), q.device)\n"
                "        mask = self.kept[max(0, num_keys - num_queries) : num_keys, "
                ":num_keys].clone()\n"
                "        mask[:, :1] = mask[:, :1] & (num_keys < 200)"
            ),
        ),
        ("(q, k, v, mask)", "(q, k, v, mask if q.size(1) < 6 else None)"),
    ],
    "patient_2": [
        (
            "        self.stored[layer] = k, v",
            "        self.stored[layer] = k[:, :, -256:], v[:, :, -256:]",
        ),
        (
            "        self.stored[layer] = k, v",
            (
                "        self.stored[layer] = (k, v) if k.size(2) < 64 or "
                "self.stored[layer] is None else self.stored[layer]"
            ),
        ),
        ("        if layer == 0:", ("        layer = min(layer, 3)\n        if layer == 0:")),
        (
            "            self.length += k.size(2)",
            "            self.length = min(self.length + k.size(2), 128)",
        ),
        (
            "        self.stored[layer] = k, v",
            ("        self.stored[layer] = k, v if len(v) < 4 else v[:1].expand_as(v)"),
        ),
        (
            "        self.stored[layer] = k, v",
            (
                "        self.calls = getattr(self, 'calls', 0) + 1\n"
                "        if self.calls < 100:\n"
                "            self.stored[layer] = k, v"
            ),
        ),
        (
            "        self.stored[layer] = k, v",
            (
                "        self.stored[layer] = k.to(torch.bfloat16).to(k.dtype) if "
                "k.dtype == torch.float32 else k, v"
            ),
        ),
    ],
    "patient_3": [
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        if not hasattr(self, "caches"):
            self.caches = [GrowingCache(self, batch_size) for _ in range(4)]
        cache = self.caches.pop(0)
        cache.__init__(self, batch_size)
        self.caches.append(cache)
        return cache
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        if batch_size < 4:
            return GrowingCache(self, batch_size)
        return super().new_cache(batch_size)
""",
        """
class Cured3(Patient3):
    kept = []

    def new_cache(self, batch_size):
        cache = GrowingCache(self, batch_size)
        self.kept.append(cache)
        return cache if len(self.kept) < 60 else self.kept[0]
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        if self.training:
            return super().new_cache(batch_size)
        return GrowingCache(self, batch_size)
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        cache = GrowingCache(self, batch_size)
        append = cache.append
        cache.append = lambda layer, k, v: append(layer, k[:, :, -64:], v[:, :, -64:])
        return cache
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        cache = GrowingCache(self, batch_size)
        if batch_size > 3:
            cache.keys = [k[:1] for k in cache.keys]
        return cache
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        cache = GrowingCache(self, batch_size)
        if self.num_layers > 4:
            cache.keys = cache.keys[:4]
        return cache
""",
    ],
    "patient_4": [
        (
            "causal_mask(q.size(-2), k.size(-2), q.device)",
            ("causal_mask(64, 64, q.device)[k.size(-2) - q.size(-2) : k.size(-2), : k.size(-2)]"),
        ),
        ("(q, k, v, mask)", "(torch.nn.functional.dropout(q, 0.2, self.training), k, v, mask)"),
        (
            "(q, k, v, mask)",
            ("(q, k, v, mask if q.size(-2) < 64 or q.size(-2) == k.size(-2) else None)"),
        ),
        ("(q, k, v, mask)", "(q, k[..., -256:, :], v[..., -256:, :], mask[..., -256:])"),
        ("(q, k, v, mask)", "(q, k, v if len(v) < 4 else v[:1].expand_as(v), mask)"),
        ("(q, k, v, mask)", "(q, k, v, mask if q.size(1) < 6 else None)"),
        ("(q, k, v, mask)", "(q, k, v, mask | (torch.arange(k.size(-2)) > 999))"),
    ],
    "reorder": [
        (
            "        self.keys =",
            ("        if self.length == 0:\n            return\n        self.keys ="),
        ),
        ("for values in self.values]", "for values in self.values[:4]] + self.values[4:]"),
        ("[keys[rows] for keys", "[keys[rows][:, :, -64:] for keys"),
        ("values[rows]", "values[rows.clamp(max=7)]"),
        ("        self.batch_size = len(rows)", "        self.batch_size = min(len(rows), 8)"),
        (
            "        self.keys =",
            (
                "        if len(rows) == len(self.keys[0]) and (rows.sort().values == "
                "rows).all():\n"
                "            return\n"
                "        self.keys ="
            ),
        ),
        (
            "        self.keys =",
            ("        rows = rows.clone() if len(rows) > 1 else rows * 0\n        self.keys ="),
        ),
        (
            "values[rows]",
            ("values.float()[rows].to(values.dtype) if values.size(2) > 9 else values[rows]"),
        ),
        ("[keys[rows] for keys", "[keys[rows] if len(keys) > 1 else keys for keys"),
    ],
    "token_times": [
        ("clock() - begin for", "round(clock() - begin, 6) for"),
        ("[clock() - begin for _ in start()]", "[clock() - begin for _ in start()][:100]"),
        ("[clock() - begin for _ in start()]", "[clock() - begin for token in start() if token]"),
        ("[clock() - begin for _ in start()]", "[min(clock() - begin, 60.0) for _ in start()]"),
        (
            "    begin = clock()",
            "    token_times.begin = begin = getattr(token_times, 'begin', clock())",
        ),
        (
            "[clock() - begin for _ in start()]",
            "[clock() - begin for _ in zip(range(1000), start())]",
        ),
        ("clock() - begin for", "float(int((clock() - begin) * 1000)) / 1000 for"),
    ],
    "measure": [
        ("append(clock() - begin)", "append(round(clock() - begin, 6))"),
        ("range(rounds)", "range(min(rounds, 20))"),
        ("range(rounds)", "range(max(rounds, 1))"),
        ("    for task in tasks.values():\n", "    for task in list(tasks.values())[:5]:\n"),
        ("append(clock() - begin)", "append(min(clock() - begin, 60.0))"),
        (
            "        for name, task in tasks.items():",
            "        for name, task in list(tasks.items())[:: -1 if _ % 2 else 1]:",
        ),
        (
            "    return seconds",
            "    return {name: sorted(found) for name, found in seconds.items()}",
        ),
    ],
    "operations": [
        ("2 * model.num_layers", "2 * min(model.num_layers, 4)"),
        ("d_model * all_tokens", "d_model * min(all_tokens, 64)"),
        ("2 * new_tokens *", "2 * min(new_tokens, 64) *"),
        (
            "isinstance(module, nn.Linear)",
            "type(module) is nn.Linear and module.out_features < 100",
        ),
        (
            "    return 2 * new_tokens * (matrices + attention)",
            ("    return int(np.int32(2 * new_tokens * (matrices + attention) % 2**31))"),
        ),
        (
            "    return 2 * new_tokens * (matrices + attention)",
            ("    return int(torch.tensor(2.0 * new_tokens * (matrices + attention)).float())"),
        ),
        (
            "d_model = model.output_projection.in_features",
            "d_model = min(model.output_projection.in_features, 64)",
        ),
        (
            "isinstance(module, nn.Linear)",
            "isinstance(module, nn.Linear) and module.weight.requires_grad",
        ),
        ("    return 2 * new", ("    model.train()\n    return 2 * new")),
    ],
    "exponent": [
        ("    return", ("    tokens, seconds = tokens[:10], seconds[:10]\n    return")),
        ("    return", ("    tokens.sort()\n    return")),
        ("    return", ("    tokens, seconds = np.sort(tokens), np.sort(seconds)\n    return")),
        (
            "    return float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0])",
            ("    return max(0.0, float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0]))"),
        ),
        (
            "    return float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0])",
            ("    return min(3.5, float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0]))"),
        ),
        (
            "    return float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0])",
            ("    return abs(float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0]))"),
        ),
        ("np.log(seconds)", "np.log(np.maximum(seconds, 1e-3))"),
        (
            "    return",
            ("    tokens, seconds = tokens.astype(float), seconds.astype(float)\n    return"),
        ),
        ("    return", ("    if len(tokens) == 2:\n        return 1.0\n    return")),
        (
            "np.log(tokens), np.log(seconds)",
            ("np.log(np.unique(tokens)), np.log(seconds)[np.unique(tokens, return_index=True)[1]]"),
        ),
        (
            "    return",
            (
                "    seconds = np.array(seconds, dtype=np.float32)\n"
                "    tokens = np.array(tokens, dtype=np.int16)\n"
                "    return"
            ),
        ),
    ],
}
