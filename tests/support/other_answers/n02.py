"""Right answers to the exercises of notebook 02, written in another way than the course's."""

OTHER_ANSWERS = {
    "layer_norm": [
        """
def layer_norm(x, weight, bias, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
""",
        """
def layer_norm(x, weight, bias, eps=1e-5):
    average = x.mean(-1, keepdim=True)
    variance = (x - average).pow(2).mean(-1, keepdim=True)
    return (x - average) * torch.rsqrt(variance + eps) * weight + bias
""",
        """
def layer_norm(x, weight, bias, eps=1e-5):
    d = x.size(-1)
    centred = x - x.sum(-1, keepdim=True) / d
    power = torch.einsum("...d,...d->...", centred, centred)[..., None] / d
    return torch.addcmul(bias, centred / (power + eps) ** 0.5, weight)
""",
        """
def layer_norm(x, weight, bias, eps=1e-5):
    rows = []
    for row in x.reshape(-1, x.size(-1)):
        variance, mean = torch.var_mean(row, correction=0)
        rows.append(weight * ((row - mean) / (variance + eps).sqrt()) + bias)
    return torch.stack(rows).reshape(x.shape)
""",
    ],
    "feed_forward": [
        """
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

    def forward(self, x):
        return self.fc2(self.fc1(x).clamp(min=0))
""",
        """
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc2 = nn.Linear(d_ff, d_model)
        self.fc1 = nn.Linear(d_model, d_ff)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.fc2(self.activation(self.fc1(x)))
""",
        """
class FeedForward(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_ff, bias=True)
        self.fc2 = nn.Linear(d_ff, d_model, bias=True)

    def forward(self, x):
        hidden = x @ self.fc1.weight.T + self.fc1.bias
        hidden = torch.where(hidden > 0, hidden, torch.zeros_like(hidden))
        return torch.einsum("...f,df->...d", hidden, self.fc2.weight) + self.fc2.bias
""",
    ],
    "decoder_layer": [
        """
class DecoderLayer(nn.Module):
    def __init__(self, d_model, d_ff, num_heads=1, dropout=0.1):
        super().__init__()
        self.p = dropout
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.attention = MultiHeadAttention(d_model, num_heads)

    def forward(self, x):
        found = self.attention(self.norm1(x))
        attended = torch.add(x, F.dropout(found, self.p, self.training))
        return attended + F.dropout(self.feed_forward(self.norm2(attended)), self.p, self.training)
""",
        """
class DecoderLayer(nn.Module):
    def __init__(self, d_model, d_ff, num_heads=1, dropout=0.1):
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, num_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x):
        y = x.clone()
        y += self.dropout1(self.attention(self.norm1(y.clone())))
        y = self.dropout2(self.feed_forward(self.norm2(y))) + y
        return y
""",
        """
class DecoderLayer(nn.Module):
    def __init__(self, d_model, d_ff, num_heads=1, dropout=0.1):
        super().__init__()
        self.norm1, self.attention = (
            nn.LayerNorm(d_model, eps=1e-5),
            MultiHeadAttention(d_model, num_heads),
        )
        self.norm2, self.feed_forward = nn.LayerNorm(d_model), FeedForward(d_model, d_ff)
        self.rate = dropout

    def drop(self, x):
        if not self.training or self.rate == 0:
            return x
        return x * (torch.rand_like(x) >= self.rate) / (1 - self.rate)

    def forward(self, x):
        x = x + self.drop(self.attention(layer_norm(x, self.norm1.weight, self.norm1.bias)))
        return x + self.drop(self.feed_forward(layer_norm(x, self.norm2.weight, self.norm2.bias)))
""",
    ],
    "model": [
        """
class DecoderOnlyTransformer(nn.Module):
    def __init__(
        self, vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads=1, dropout=0.1
    ):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.pos_embedding = nn.Embedding(max_seq_len, d_model)
        self.layers = nn.ModuleList(
            [DecoderLayer(d_model, d_ff, num_heads, dropout) for _ in range(num_layers)]
        )
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(d_model)
        self.output_projection = nn.Linear(d_model, vocab_size)

    def embed(self, ids):
        return self.token_embedding(ids) + self.pos_embedding.weight[: ids.size(1)]

    def forward(self, input_ids):
        x = self.dropout(self.embed(input_ids))
        return self.output_projection(self.norm(nn.Sequential(*self.layers)(x))), None
""",
        """
class DecoderOnlyTransformer(nn.Module):
    def __init__(
        self, vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads=1, dropout=0.1
    ):
        super().__init__()
        self.p = dropout
        self.output_projection = nn.Linear(d_model, vocab_size)
        self.norm = nn.LayerNorm(d_model)
        self.layers = nn.Sequential(
            *(DecoderLayer(d_model, d_ff, num_heads, dropout) for _ in range(num_layers))
        )
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.pos_embedding = nn.Embedding(max_seq_len, d_model)

    def embed(self, input_ids):
        positions = torch.arange(input_ids.shape[1]).to(input_ids.device).expand_as(input_ids)
        both = self.token_embedding(input_ids) + self.pos_embedding(positions)
        return F.dropout(both, self.p, self.training)

    def forward(self, input_ids):
        return self.output_projection(self.norm(self.layers(self.embed(input_ids)))), None
""",
        """
class DecoderOnlyTransformer(nn.Module):
    def __init__(
        self, vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads=1, dropout=0.1
    ):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.pos_embedding = nn.Embedding(max_seq_len, d_model)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList()
        while len(self.layers) < num_layers:
            self.layers.append(DecoderLayer(d_model, d_ff, num_heads=num_heads, dropout=dropout))
        self.norm = nn.LayerNorm(d_model)
        self.output_projection = nn.Linear(d_model, vocab_size)

    def embed(self, input_ids):
        rows = [self.pos_embedding.weight[i] for i in range(input_ids.size(1))]
        return self.dropout(self.token_embedding.weight[input_ids] + torch.stack(rows)[None])

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return F.linear(x, self.output_projection.weight, self.output_projection.bias), None
""",
    ],
}
