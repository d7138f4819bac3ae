"""Right answers to the exercises of notebook 01, written in another way than the course's."""

OTHER_ANSWERS = {
    "softmax": [
        """
softmax = lambda s: (
    F.softmax(s.float() if s.dtype.itemsize == 2 else s, dim=-1).nan_to_num(0.0).to(s.dtype)
)
""",
        """
def softmax(scores):
    x = scores.float() if scores.dtype.itemsize == 2 else scores
    log = torch.logsumexp(x, -1, keepdim=True)
    return torch.exp(x - log).masked_fill(log.isneginf(), 0).to(scores.dtype)
""",
        """
def softmax(scores):
    x = scores.to(torch.float64) if scores.dtype.itemsize == 2 else scores
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        if torch.isinf(row).all():
            rows.append(torch.zeros_like(row))
        else:
            e = 2.0 ** ((row - row.max()) / math.log(2))
            rows.append(e / e.sum())
    return torch.stack(rows).view(scores.shape).to(scores.dtype)
""",
        """
class Softmax:
    def __call__(self, s):
        x = s.double() if s.dtype != torch.float32 else s
        top = torch.where(x.amax(-1, True).isfinite(), x.amax(-1, True), 0).detach()
        e = torch.exp(x - top)
        return (e / e.sum(-1, True).clamp(min=1e-30)).type_as(s)


softmax = Softmax()
""",
    ],
    "causal_mask": [
        """
def causal_mask(num_queries, num_keys, device=None):
    return torch.ones(num_queries, num_keys, device=device).tril(num_keys - num_queries) == 1
""",
        """
def causal_mask(q, k, device=None):
    return ~torch.ones(q, k, device=device).bool().triu(k - q + 1)
""",
        """
def causal_mask(num_queries, num_keys, device=None):
    first = num_keys - num_queries
    rows = [[key <= first + i for key in range(num_keys)] for i in range(num_queries)]
    return torch.tensor(rows, dtype=torch.bool, device=device)
""",
        """
def causal_mask(num_queries, num_keys, device=None):
    mask = torch.zeros(num_queries, num_keys, dtype=torch.bool)
    for i in range(num_queries):
        mask[i, : num_keys - num_queries + i + 1] = True
    return mask.to(device)
""",
    ],
    "attention": [
        """
def attention_weights(q, k, mask=None):
    scores = torch.einsum("...qd,...kd->...qk", q, k) / q.size(-1) ** 0.5
    if mask is not None:
        scores = torch.where(mask, scores, torch.tensor(-math.inf))
    exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def attention(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
""",
        """
def attention_weights(q, k, mask=None):
    scores = torch.matmul(q, k.mT) * k.shape[-1] ** -0.5
    return softmax(
        scores if mask is None else scores.masked_fill(mask.logical_not(), float("-inf"))
    )


def attention(q, k, v, mask=None):
    weights = attention_weights(q, k, mask)
    return (weights[..., None] * v.unsqueeze(-3)).sum(-2)
""",
        """
def attention_weights(q, k, mask=None):
    scores = (q * q.shape[-1] ** -0.25) @ (k * q.shape[-1] ** -0.25).transpose(-1, -2)
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
        scores = scores + bias.masked_fill(mask == False, -torch.inf)
    return torch.log_softmax(scores, -1).exp()


def attention(q, k, v, mask=None):
    return torch.einsum("...qk,...kd->...qd", attention_weights(q, k, mask), v)
""",
        """
def attention_weights(q, k, mask=None):
    rows = []
    for i in range(q.size(-2)):
        score = (q[..., i : i + 1, :] * k).sum(-1) / math.sqrt(q.size(-1))
        if mask is not None:
            score = score.masked_fill(~mask[i], -math.inf)
        rows.append(score.softmax(-1))
    return torch.stack(rows, dim=-2)


attention = lambda q, k, v, mask=None: attention_weights(q, k, mask).matmul(v)
""",
    ],
    "multi_head": [
        """
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, num_heads=1):
        super().__init__()
        self.num_heads = num_heads
        self.W_q, self.W_k, self.W_v, self.W_o = (
            nn.Linear(d_model, d_model, bias=False) for _ in range(4)
        )

    def split_heads(self, x):
        return torch.stack(x.chunk(self.num_heads, dim=-1), dim=1)

    def merge_heads(self, x):
        return torch.cat([x[:, head] for head in range(x.size(1))], dim=-1)

    def forward(self, x):
        q, k, v = [self.split_heads(part(x)) for part in (self.W_q, self.W_k, self.W_v)]
        return self.W_o(self.merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
""",
        """
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, num_heads=1):
        super().__init__()
        self.heads, self.num_heads, self.d = num_heads, num_heads, d_model // num_heads
        for name in "qkvo":
            setattr(self, "W_" + name, nn.Linear(d_model, d_model, bias=False))

    def split_heads(self, x):
        return x.unflatten(-1, (self.heads, self.d)).permute(0, 2, 1, 3)

    def merge_heads(self, x):
        return x.permute(0, 2, 1, 3).flatten(2)

    def forward(self, x):
        every = torch.cat([self.W_q.weight, self.W_k.weight, self.W_v.weight])
        q, k, v = map(self.split_heads, F.linear(x, every).chunk(3, -1))
        scores = q @ k.mT / self.d**0.5
        hidden = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).triu(1)
        return self.W_o(self.merge_heads(softmax(scores.masked_fill(hidden, -math.inf)) @ v))
""",
        """
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, num_heads=1):
        super().__init__()
        self.num_heads = num_heads
        self.W_o = nn.Linear(d_model, d_model, bias=False)
        self.W_v = nn.Linear(d_model, d_model, bias=False)
        self.W_k = nn.Linear(d_model, d_model, bias=False)
        self.W_q = nn.Linear(d_model, d_model, bias=False)

    def split_heads(self, x):
        b, t, d = x.shape
        return torch.einsum("bthd->bhtd", x.reshape(b, t, self.num_heads, -1))

    def merge_heads(self, x):
        b, h, t, d = x.shape
        out = torch.empty(b, t, h * d, dtype=x.dtype, device=x.device)
        for head in range(h):
            out[:, :, head * d : (head + 1) * d] = x[:, head]
        return out

    def forward(self, x):
        heads = []
        mask = causal_mask(x.size(1), x.size(1), x.device)
        q, k, v = (
            self.split_heads(self.W_q(x)),
            self.split_heads(self.W_k(x)),
            self.split_heads(self.W_v(x)),
        )
        for head in range(self.num_heads):
            heads.append(attention(q[:, head], k[:, head], v[:, head], mask))
        return self.W_o(self.merge_heads(torch.stack(heads, 1)))
""",
    ],
}
