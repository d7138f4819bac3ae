"""Right answers to the exercises of notebook 04, written in another way than the course's."""

OTHER_ANSWERS = {
    "growing_cache": [
        """
class GrowingCache:
    def __init__(self, model, batch_size):
        self.batch_size = batch_size
        shape = (batch_size, model.num_heads, 0, model.d_head)
        self.chunks = [
            (
                [torch.empty(shape, dtype=model.dtype, device=model.device)],
                [torch.empty(shape, dtype=model.dtype, device=model.device)],
            )
            for _ in range(model.num_layers)
        ]

    @property
    def length(self):
        return sum(k.size(2) for k in self.chunks[0][0])

    def append(self, layer, k, v):
        for chunks, new in zip(self.chunks[layer], (k, v)):
            chunks.append(new)
        return tuple(torch.cat(chunks, dim=2) for chunks in self.chunks[layer])

    @property
    def nbytes(self):
        return sum(t.nbytes for both in self.chunks for kind in both for t in kind)
""",
        """
class GrowingCache:
    def __init__(self, model, batch_size):
        self.batch_size = batch_size
        self.keys, self.values = [None] * model.num_layers, [None] * model.num_layers

    @property
    def length(self):
        return 0 if self.keys[-1] is None else self.keys[-1].shape[-2]

    def append(self, layer, k, v):
        if self.keys[layer] is None:
            self.keys[layer], self.values[layer] = k.clone(), v.clone()
        else:
            self.keys[layer] = torch.concatenate((self.keys[layer], k), -2)
            self.values[layer] = torch.concatenate((self.values[layer], v), -2)
        return self.keys[layer], self.values[layer]

    @property
    def nbytes(self):
        return sum(t.numel() * t.element_size() for t in self.keys + self.values)
""",
        """
class GrowingCache:
    def __init__(self, model, batch_size):
        self.batch_size, self.count = batch_size, [0] * model.num_layers
        empty = torch.empty(
            (batch_size, model.num_heads, 0, model.d_head), dtype=model.dtype, device=model.device
        )
        self.keys = [empty] * model.num_layers
        self.values = [empty] * model.num_layers

    @property
    def length(self):
        return self.count[0]

    def append(self, layer, k, v):
        old, new = self.count[layer], k.size(2)
        for store, part in ((self.keys, k), (self.values, v)):
            room = part.new_empty(part.size(0), part.size(1), old + new, part.size(3))
            room[:, :, :old] = store[layer]
            room[:, :, old:] = part
            store[layer] = room
        self.count[layer] += new
        return self.keys[layer], self.values[layer]

    @property
    def nbytes(self):
        return sum(t.nbytes for t in [*self.keys, *self.values])
""",
    ],
    "cached_attention": [
        """
class MultiHeadAttention(attention.MultiHeadAttention):
    def split_heads(self, x):
        return torch.stack(x.chunk(self.num_heads, dim=-1), dim=1)

    def forward(self, x, cache=None, layer=0):
        q = self.split_heads(self.W_q(x))
        k, v = self.split_heads(self.W_k(x)), self.split_heads(self.W_v(x))
        if cache:
            k, v = cache.append(layer, k, v)
        return self.W_o(self.merge_heads(self.attend(q, k, v)))
""",
        """
class MultiHeadAttention(attention.MultiHeadAttention):
    def forward(self, x, cache=None, layer=0):
        if cache is None:
            return super().forward(x)
        q, k, v = map(self.split_heads, (self.W_q(x), self.W_k(x), self.W_v(x)))
        keys, values = cache.append(layer, k, v)
        mask = causal_mask(q.shape[2], keys.shape[2], x.device)
        return self.W_o(self.merge_heads(attention.attention(q, keys, values, mask)))
""",
        """
class MultiHeadAttention(attention.MultiHeadAttention):
    def forward(self, x, cache=None, layer=0):
        k, v = self.split_heads(self.W_k(x)), self.split_heads(self.W_v(x))
        k, v = (k, v) if cache is None else cache.append(layer, k, v)
        q = self.split_heads(self.W_q(x))
        hidden = torch.ones(q.size(2), k.size(2), dtype=torch.bool, device=x.device).tril(
            k.size(2) - q.size(2)
        )
        return self.W_o(self.merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)))
""",
    ],
    "cached_model": [
        """
class DecoderOnlyTransformer(transformer.DecoderOnlyTransformer):
    def __init__(
        self, vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads=1, dropout=0.1
    ):
        super().__init__(vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads, dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, d_ff, num_heads, dropout) for _ in range(num_layers)
        )

    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)

    def embed(self, input_ids, start=0):
        where = self.pos_embedding.weight[start : start + input_ids.size(1)]
        return self.dropout(self.token_embedding(input_ids) + where)

    def forward(self, input_ids, past_kv=None, use_cache=False):
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        x = self.embed(input_ids, past_kv.length if past_kv else 0)
        for i in range(len(self.layers)):
            x = self.layers[i](x, past_kv, i)
        return self.output_projection(self.norm(x)), past_kv
""",
        """
class DecoderOnlyTransformer(transformer.DecoderOnlyTransformer):
    def __init__(
        self, vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads=1, dropout=0.1
    ):
        super().__init__(vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads, dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, d_ff, num_heads, dropout) for _ in range(num_layers)
        )

    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)

    def embed(self, input_ids, start=0):
        positions = start + torch.arange(input_ids.size(1)).to(input_ids.device)
        return self.dropout(self.pos_embedding(positions)[None] + self.token_embedding(input_ids))

    def forward(self, input_ids, past_kv=None, use_cache=False):
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        if use_cache:
            x, layer_number = self.embed(input_ids, past_kv.length), 0
            for layer in self.layers:
                x = layer(x, cache=past_kv, layer=layer_number)
                layer_number += 1
        else:
            x = self.embed(input_ids)
            for layer in self.layers:
                x = layer(x)
        return self.output_projection(self.norm(x)), past_kv
""",
        """
class DecoderOnlyTransformer(transformer.DecoderOnlyTransformer):
    def __init__(
        self, vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads=1, dropout=0.1
    ):
        super().__init__(vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads, dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, d_ff, num_heads, dropout) for _ in range(num_layers)
        )

    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)

    def embed(self, input_ids, start=0):
        positions = torch.ones_like(input_ids).cumsum(1) - 1 + start
        return self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))

    def forward(self, input_ids, past_kv=None, use_cache=False):
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        start = getattr(past_kv, "length", 0)
        x = self.embed(input_ids, start)
        numbered = zip(range(self.num_layers), self.layers)
        for number, layer in numbered:
            x = layer(x, past_kv, number)
        return F.linear(
            self.norm(x), self.output_projection.weight, self.output_projection.bias
        ), past_kv
""",
    ],
    "decode_loop": [
        """
@torch.no_grad()
def decode_loop(
    model, input_ids, max_new_tokens, use_cache, past_kv=None, stop_token=None, **sampling
):
    text = input_ids
    stopped = torch.zeros_like(input_ids[:, 0], dtype=torch.bool)
    fed = input_ids
    for _ in range(max_new_tokens):
        if use_cache:
            logits, past_kv = model(fed, past_kv, True)
        else:
            logits, _ = model(text)
        token = next_token(logits[:, -1, :], **sampling)
        if stop_token is not None:
            token = token.masked_fill(stopped, stop_token)
            stopped |= token == stop_token
        yield token
        if stop_token is not None and bool(stopped.all()):
            break
        fed = token.unsqueeze(-1)
        text = torch.cat([text, fed], dim=-1)
""",
        """
@torch.no_grad()
def decode_loop(
    model, input_ids, max_new_tokens, use_cache, past_kv=None, stop_token=None, **sampling
):
    ids = input_ids
    stopped = torch.zeros(ids.size(0), dtype=torch.bool, device=ids.device)
    for _ in range(max_new_tokens):
        found = model(ids, past_kv=past_kv, use_cache=use_cache)
        logits = found[0][:, -1]
        if use_cache:
            past_kv = found[1]
        token = next_token(logits, **sampling)
        if stop_token is not None:
            token = torch.where(stopped, stop_token, token)
            stopped = torch.logical_or(stopped, token.eq(stop_token))
        yield token
        if stop_token is not None and stopped.all():
            return
        new = token[:, None]
        ids = new if use_cache else torch.hstack((ids, new))
""",
        """
@torch.no_grad()
def decode_loop(
    model, input_ids, max_new_tokens, use_cache, past_kv=None, stop_token=None, **sampling
):
    tokens = []
    done = None
    while len(tokens) < max_new_tokens:
        if tokens and use_cache:
            ids = tokens[-1].view(-1, 1)
        else:
            ids = torch.cat([input_ids, *(t[:, None] for t in tokens)], 1)
        logits, past_kv = model(ids, past_kv=past_kv, use_cache=use_cache)
        token = next_token(logits[:, -1], **sampling)
        if stop_token is not None:
            token = token if done is None else token.masked_fill(done, stop_token)
            done = token == stop_token
        tokens.append(token)
        yield token
        if done is not None and done.all():
            return
""",
    ],
    "preallocated_cache": [
        """
class PreallocatedCache:
    def __init__(self, model, batch_size):
        shape = (model.num_layers, batch_size, model.num_heads, model.max_seq_len, model.d_head)
        self.batch_size = batch_size
        self.keys = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.values = torch.empty(shape, dtype=model.dtype, device=model.device)
        self.lengths = [0] * model.num_layers

    @property
    def length(self):
        return self.lengths[0]

    def append(self, layer, k, v):
        start, new = self.lengths[layer], k.size(2)
        self.lengths[layer] += new
        found = []
        for room, part in ((self.keys[layer], k), (self.values[layer], v)):
            room.narrow(2, start, new).copy_(part)
            found.append(room.narrow(2, 0, start + new))
        return tuple(found)

    @property
    def nbytes(self):
        return self.keys.nbytes + self.values.nbytes
""",
        """
class PreallocatedCache:
    def __init__(self, model, batch_size):
        shape = (model.num_layers, batch_size, model.num_heads, model.max_seq_len, model.d_head)
        self.batch_size = batch_size
        self.keys = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0 for _ in range(model.num_layers)]

    @property
    def length(self):
        return self.lengths[-1]

    def append(self, layer, k, v):
        for i in range(k.size(2)):
            self.keys[layer][:, :, self.lengths[layer]] = k[:, :, i]
            self.values[layer][:, :, self.lengths[layer]] = v[:, :, i]
            self.lengths[layer] += 1
        return self.keys[layer][:, :, : self.lengths[layer]], self.values[layer][
            :, :, : self.lengths[layer]
        ]

    @property
    def nbytes(self):
        return 2 * self.keys.nbytes
""",
        """
class PreallocatedCache:
    def __init__(self, model, batch_size):
        shape = (model.num_layers, batch_size, model.num_heads, model.max_seq_len, model.d_head)
        self.batch_size = batch_size
        self.keys, self.values = (
            torch.empty(shape, dtype=model.dtype, device=model.device) for _ in range(2)
        )
        self.lengths = torch.zeros(model.num_layers, dtype=torch.long)

    @property
    def length(self):
        return int(self.lengths[0])

    def append(self, layer, k, v):
        where = torch.arange(k.size(2), device=k.device) + int(self.lengths[layer])
        self.keys[layer].index_copy_(2, where, k)
        self.values[layer].index_copy_(2, where, v)
        self.lengths[layer] += k.size(2)
        filled = slice(None, int(self.lengths[layer]))
        return self.keys[layer, ..., filled, :], self.values[layer, ..., filled, :]

    @property
    def nbytes(self):
        return self.keys.nbytes + self.values.nbytes
""",
    ],
}
