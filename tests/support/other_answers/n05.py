"""Right answers to the exercises of notebook 05, written in another way than the course's."""

OTHER_ANSWERS = {
    "patient_1": [
        """
class CuredAttention1(Attention1):
    def attend(self, q, k, v):
        num_queries, num_keys = q.size(-2), k.size(-2)
        square = causal_mask(num_keys, num_keys, q.device)
        mask = square if num_queries == num_keys else square[num_keys - num_queries :, :]
        return attention.attention(q, k, v, mask)


class Cured1(WithAttention):
    attention_class = CuredAttention1
""",
        """
class CuredAttention1(Attention1):
    def attend(self, q, k, v):
        return super(Attention1, self).attend(q, k, v)


class Cured1(WithAttention):
    attention_class = CuredAttention1
""",
        """
class CuredAttention1(MultiHeadAttention):
    def attend(self, q, k, v):
        here = torch.arange(k.size(2), device=q.device)
        seen = here <= here[-q.size(2) :, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


class Cured1(WithAttention):
    attention_class = CuredAttention1
""",
        """
class CuredAttention1(Attention1):
    attend = MultiHeadAttention.attend


class Cured1(Patient1):
    attention_class = CuredAttention1
""",
    ],
    "patient_2": [
        """
class CuredCache2(Cache2):
    def append(self, layer, k, v):
        keys, values = super().append(layer, k, v)
        self.stored[layer] = keys, values
        return self.stored[layer]


class Cured2(WithCache):
    cache_class = CuredCache2
""",
        """
class CuredCache2(Cache2):
    def append(self, layer, k, v):
        if layer == len(self.stored) - 1:
            self.length = self.length + k.shape[2]
        old = self.stored[layer] or (k[:, :, :0], v[:, :, :0])
        self.stored[layer] = [torch.cat(pair, dim=-2) for pair in zip(old, (k, v))]
        return tuple(self.stored[layer])


class Cured2(WithCache):
    cache_class = CuredCache2
""",
        """
class CuredCache2:
    def __init__(self, model, batch_size):
        self.batch_size, self.parts = batch_size, [[] for _ in range(model.num_layers)]

    @property
    def length(self):
        return sum(k.size(2) for k, _ in self.parts[0])

    def append(self, layer, k, v):
        self.parts[layer].append((k, v))
        keys, values = zip(*self.parts[layer])
        return torch.cat(keys, 2), torch.cat(values, 2)


class Cured2(WithCache):
    cache_class = CuredCache2
""",
    ],
    "patient_3": [
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        self.cache = GrowingCache(self, batch_size)
        return self.cache
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        return super(Patient3, self).new_cache(batch_size)
""",
        """
class Cured3(Patient3):
    def new_cache(self, batch_size):
        self.__dict__.pop("cache", None)
        return super().new_cache(batch_size)
""",
        """
class Cured3(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return GrowingCache(model=self, batch_size=batch_size)
""",
    ],
    "patient_4": [
        """
class CuredAttention4(Attention4):
    def attend(self, q, k, v):
        num_queries, num_keys = q.size(-2), k.size(-2)
        if num_queries == 1:
            return attention.attention(q, k, v)
        return attention.attention(q, k, v, causal_mask(num_queries, num_keys, q.device))


class Cured4(WithAttention):
    attention_class = CuredAttention4
""",
        """
class CuredAttention4(Attention4):
    def attend(self, q, k, v):
        rows = [
            attention.attention(
                q[:, :, i : i + 1],
                k[:, :, : k.size(2) - q.size(2) + i + 1],
                v[:, :, : k.size(2) - q.size(2) + i + 1],
            )
            for i in range(q.size(2))
        ]
        return torch.cat(rows, dim=2)


class Cured4(WithAttention):
    attention_class = CuredAttention4
""",
        """
class CuredAttention4(Attention4):
    def attend(self, q, k, v):
        return MultiHeadAttention.attend(self, q, k, v)


class Cured4(Patient4):
    attention_class = CuredAttention4
""",
    ],
    "reorder": [
        """
class ReorderedCache(GrowingCache):
    def reorder(self, rows):
        for layer in range(len(self.keys)):
            self.keys[layer] = self.keys[layer].index_select(0, rows)
            self.values[layer] = self.values[layer].index_select(0, rows)
        self.batch_size = rows.numel()
""",
        """
class ReorderedCache(GrowingCache):
    def reorder(self, rows):
        rows = rows.tolist()
        for store in (self.keys, self.values):
            store[:] = [torch.stack([x[row] for row in rows]) for x in store]
        self.batch_size = len(rows)
""",
        """
class ReorderedCache(GrowingCache):
    def reorder(self, rows):
        pick = F.one_hot(rows, self.batch_size).to(self.keys[0].dtype)
        self.keys = [torch.einsum("nb,bhtd->nhtd", pick, x) for x in self.keys]
        self.values = [torch.einsum("nb,bhtd->nhtd", pick, x) for x in self.values]
        self.batch_size = self.keys[0].size(0)
""",
    ],
}
