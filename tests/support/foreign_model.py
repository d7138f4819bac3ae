"""Somebody else's model: the course's interface, none of its code, caches that are plain tuples."""

import math

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, d_model, d_ff, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = nn.ModuleDict(
            {f"W_{x}": nn.Linear(d_model, d_model, bias=False) for x in "qkvo"}
        )
        self.feed_forward = nn.ModuleDict(
            {"fc1": nn.Linear(d_model, d_ff), "fc2": nn.Linear(d_ff, d_model)}
        )

    def forward(self, x, past):
        batch, new, d_model = x.shape
        normed = self.norm1(x)
        q, k, v = (
            self.attention[f"W_{name}"](normed).view(batch, new, self.num_heads, -1)
            for name in "qkv"
        )
        if past is not None:
            k, v = torch.cat([past[0], k], dim=1), torch.cat([past[1], v], dim=1)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.size(-1))
        future = torch.ones(new, k.size(1), dtype=torch.bool, device=x.device)
        scores = scores.masked_fill(future.triu(1 + k.size(1) - new), -torch.inf)
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
        x = x + self.attention["W_o"](mixed.reshape(batch, new, d_model))
        hidden = self.feed_forward["fc1"](self.norm2(x)).relu()
        return x + self.feed_forward["fc2"](hidden), (k, v)


class TupleCacheTransformer(nn.Module):
    def __init__(self, vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads=1):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.pos_embedding = nn.Embedding(max_seq_len, d_model)
        self.layers = nn.ModuleList(Block(d_model, d_ff, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)
        self.output_projection = nn.Linear(d_model, vocab_size)

    def forward(self, input_ids, past_kv=None, use_cache=False):
        start = 0 if past_kv is None else past_kv[0][0].size(1)
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        x = self.token_embedding(input_ids) + self.pos_embedding(positions)
        stored = []
        for i, layer in enumerate(self.layers):
            x, kept = layer(x, None if past_kv is None else past_kv[i])
            stored.append(kept)
        return self.output_projection(self.norm(x)), tuple(stored) if use_cache else None

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        past_kv, new = None, input_ids
        for _ in range(max_new_tokens):
            logits, past_kv = self(new, past_kv, use_cache)
            shares = torch.softmax(logits[:, -1] / temperature, dim=-1)
            token = torch.multinomial(shares, 1)
            input_ids = torch.cat([input_ids, token], dim=1)
            new = token if use_cache else input_ids
        return input_ids
