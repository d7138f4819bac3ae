"""Two implementations of the model that share no code with `course_utils`.

`loop_logits`: NumPy in float64, one position and one head at a time, no mask, no batch, no cache.
`gpt2_logits`: Hugging Face's GPT-2 with the weights mapped in.
Both give the logits (T, V) of one sequence of T ids, from a state dict.
"""

import math

import numpy as np
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel


def loop_logits(state, ids, num_heads):
    w = {name: tensor.double().numpy() for name, tensor in state.items()}
    num_layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("layers."))
    stream = [
        w["token_embedding.weight"][token] + w["pos_embedding.weight"][position]
        for position, token in enumerate(ids)
    ]
    for i in range(num_layers):
        p = f"layers.{i}."
        normed = [_norm(x, w[p + "norm1.weight"], w[p + "norm1.bias"]) for x in stream]
        keys = [w[p + "attention.W_k.weight"] @ x for x in normed]
        values = [w[p + "attention.W_v.weight"] @ x for x in normed]
        for position, x in enumerate(normed):
            query = w[p + "attention.W_q.weight"] @ x
            seen = slice(0, position + 1)
            mixed = _look(query, keys[seen], values[seen], num_heads)
            stream[position] = stream[position] + w[p + "attention.W_o.weight"] @ mixed
        for position, x in enumerate(stream):
            normed = _norm(x, w[p + "norm2.weight"], w[p + "norm2.bias"])
            hidden = w[p + "feed_forward.fc1.weight"] @ normed + w[p + "feed_forward.fc1.bias"]
            hidden = np.maximum(hidden, 0)
            out = w[p + "feed_forward.fc2.weight"] @ hidden + w[p + "feed_forward.fc2.bias"]
            stream[position] = x + out
    normed = [_norm(x, w["norm.weight"], w["norm.bias"]) for x in stream]
    projection, bias = w["output_projection.weight"], w["output_projection.bias"]
    return np.stack([projection @ x + bias for x in normed])


def _norm(x, weight, bias):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * weight + bias


def _look(query, keys, values, num_heads):
    d_head = len(query) // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * d_head, (head + 1) * d_head)
        scores = [query[part] @ key[part] / math.sqrt(d_head) for key in keys]
        shares = [math.exp(score - max(scores)) for score in scores]
        heads.append(sum(s * v[part] for s, v in zip(shares, values, strict=True)) / sum(shares))
    return np.concatenate(heads)


def gpt2_model(state, num_heads):
    vocab_size, d_model = state["token_embedding.weight"].shape
    num_layers = sum(name.endswith("norm1.weight") for name in state)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=state["pos_embedding.weight"].size(0),
        n_embd=d_model,
        n_layer=num_layers,
        n_head=num_heads,
        n_inner=state["layers.0.feed_forward.fc1.weight"].size(0),
        activation_function="relu",
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config)
    model.lm_head = nn.Linear(d_model, vocab_size)
    zeros = torch.zeros(d_model)
    mapped = {
        "transformer.wte.weight": state["token_embedding.weight"],
        "transformer.wpe.weight": state["pos_embedding.weight"],
        "transformer.ln_f.weight": state["norm.weight"],
        "transformer.ln_f.bias": state["norm.bias"],
        "lm_head.weight": state["output_projection.weight"],
        "lm_head.bias": state["output_projection.bias"],
    }
    for i in range(num_layers):
        ours, theirs = f"layers.{i}.", f"transformer.h.{i}."
        qkv = [state[f"{ours}attention.W_{x}.weight"].T for x in "qkv"]
        mapped |= {
            theirs + "ln_1.weight": state[ours + "norm1.weight"],
            theirs + "ln_1.bias": state[ours + "norm1.bias"],
            theirs + "ln_2.weight": state[ours + "norm2.weight"],
            theirs + "ln_2.bias": state[ours + "norm2.bias"],
            theirs + "attn.c_attn.weight": torch.cat(qkv, dim=1),
            theirs + "attn.c_attn.bias": torch.cat([zeros] * 3),
            theirs + "attn.c_proj.weight": state[ours + "attention.W_o.weight"].T,
            theirs + "attn.c_proj.bias": zeros,
            theirs + "mlp.c_fc.weight": state[ours + "feed_forward.fc1.weight"].T,
            theirs + "mlp.c_fc.bias": state[ours + "feed_forward.fc1.bias"],
            theirs + "mlp.c_proj.weight": state[ours + "feed_forward.fc2.weight"].T,
            theirs + "mlp.c_proj.bias": state[ours + "feed_forward.fc2.bias"],
        }
    model.load_state_dict(mapped, strict=True)
    return model.double().eval()


@torch.no_grad()
def gpt2_logits(state, ids, num_heads):
    return gpt2_model(state, num_heads)(torch.tensor([ids])).logits[0].numpy()
