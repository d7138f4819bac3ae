"""Decoding: greedy and sampled, with or without a cache (notebook 03).

Shapes: B batch, T tokens so far, V vocab_size.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .attention import softmax


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (B, V) with all but the k largest of each row at -inf (ties with the k-th stay)."""
    smallest_kept = logits.topk(min(k, logits.size(-1))).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (B, V) with all but the nucleus at -inf: the fewest likeliest tokens that reach p.

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, section 3.1.
    """
    ordered, token = logits.sort(descending=True)
    probability = softmax(ordered)
    likelier = probability.cumsum(-1) - probability
    ordered = ordered.masked_fill(likelier >= p, -math.inf)
    return torch.empty_like(logits).scatter(-1, token, ordered)


def next_token(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token id per row (B,) from the logits (B, V) of the last position.

    `temperature=0` takes the likeliest token. Otherwise: divide by the temperature, cut to the
    `top_k`, then to the `top_p`, and draw. `generator` must live on the logits' device.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return torch.multinomial(softmax(logits), 1, generator=generator).squeeze(-1)


def check_request(
    model: nn.Module,
    input_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> None:
    """Raise ValueError, before any work is done, if a generation cannot be carried out."""
    if not isinstance(input_ids, Tensor):
        raise ValueError(
            f"The prompt is a {type(input_ids).__name__}, expected a tensor of token ids. From a "
            "list of ids: torch.tensor([ids])."
        )
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise ValueError(
            f"The prompt holds {input_ids.dtype}, expected whole numbers. Token ids are torch.long."
        )
    if input_ids.dim() != 2 or input_ids.size(1) == 0:
        raise ValueError(
            f"The prompt has shape {tuple(input_ids.shape)}, expected (batch, seq_len) with at "
            "least one token. For one sequence use input_ids.unsqueeze(0)."
        )
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be 0 or more.")
    max_seq_len = model.pos_embedding.weight.size(0)
    room = max_seq_len - input_ids.size(1)
    if max_new_tokens > room:
        raise ValueError(
            f"A prompt of {input_ids.size(1)} tokens and max_new_tokens={max_new_tokens} do not "
            f"fit max_seq_len={max_seq_len}. Ask for at most {max(room, 0)} new tokens or "
            "shorten the prompt."
        )
    vocab_size = model.token_embedding.weight.size(0)
    outside = input_ids[(input_ids < 0) | (input_ids >= vocab_size)]
    if len(outside):
        raise ValueError(
            f"The prompt holds token id {outside[0].item()}, expected 0 to {vocab_size - 1}. Was "
            "it made by another tokenizer?"
        )
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be 0 (greedy) or a positive number.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1.")


@torch.no_grad()
def decode_loop(
    model: nn.Module,
    input_ids: Tensor,
    max_new_tokens: int,
    use_cache: bool,
    past_kv: object = None,
    stop_token: int | None = None,
    **sampling: object,
) -> Iterator[Tensor]:
    """Yield one token per row (B,) at a time: `stream` without its look at the request."""
    ids = input_ids
    stopped = torch.zeros(ids.size(0), dtype=torch.bool, device=ids.device)
    for _ in range(max_new_tokens):
        logits, past_kv = model(ids, past_kv=past_kv, use_cache=use_cache)
        token = next_token(logits[:, -1], **sampling)
        if stop_token is not None:
            token = torch.where(stopped, stop_token, token)
            stopped = stopped | (token == stop_token)
        yield token
        if stop_token is not None and stopped.all():
            return
        ids = token[:, None] if use_cache else torch.cat([ids, token[:, None]], dim=1)


def stream(
    model: nn.Module,
    input_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    use_cache: bool = True,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    stop_token: int | None = None,
    past_kv: object = None,
) -> Iterator[Tensor]:
    """Yield the new tokens (B,) one by one, each as soon as it is known.

    With a cache, the prompt is run once (prefill) and then one token at a time (decode); without,
    the whole sequence is run again for each token. A row that has produced `stop_token` repeats
    it; when all rows have, the stream ends. `past_kv` is an empty cache to use instead of the
    model's own kind. Raises ValueError, when called, for a request that cannot be carried out.
    """
    check_request(model, input_ids, max_new_tokens, temperature, top_k, top_p)
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
    return decode_loop(model, input_ids, max_new_tokens, use_cache, past_kv, stop_token, **sampling)


def generate(
    model: nn.Module,
    input_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    use_cache: bool = True,
    **options: object,
) -> Tensor:
    """The prompt (B, T) with up to `max_new_tokens` tokens after it; options as in `stream`."""
    tokens = stream(model, input_ids, max_new_tokens, temperature, use_cache, **options)
    return torch.cat([input_ids, *(token[:, None] for token in tokens)], dim=1)


@torch.no_grad()
def beam_search(
    model: nn.Module,
    input_ids: Tensor,
    max_new_tokens: int,
    num_beams: int,
    use_cache: bool = True,
) -> tuple[Tensor, Tensor]:
    """The `num_beams` likeliest continuations that a search of that width finds, best first.

    `input_ids` is one prompt (1, T). Returns ids (num_beams, T + max_new_tokens) and the natural
    logarithm of each continuation's probability (num_beams,). In each step every beam is continued
    by every token, and the best `num_beams` of all these stay; the cache is reordered with them.
    Raises ValueError for a request that cannot be carried out.
    Source: Graves, "Sequence Transduction with Recurrent Neural Networks", 2012, algorithm 1.
    """
    check_request(model, input_ids, max_new_tokens)
    if input_ids.size(0) != 1:
        raise ValueError(f"beam_search takes one prompt (1, T), not {input_ids.size(0)} of them.")
    if num_beams < 1:
        raise ValueError(f"num_beams={num_beams} must be at least 1.")
    ids, past_kv = input_ids, None
    new = ids
    scores = torch.zeros(1, device=ids.device)
    for _ in range(max_new_tokens):
        logits, past_kv = model(new, past_kv=past_kv, use_cache=use_cache)
        candidates = scores[:, None] + torch.log_softmax(logits[:, -1].float(), dim=-1)
        scores, best = candidates.flatten().topk(min(num_beams, candidates.numel()))
        beam, token = best // logits.size(-1), best % logits.size(-1)
        ids = torch.cat([ids[beam], token[:, None]], dim=1)
        if use_cache:
            past_kv.reorder(beam)
        new = token[:, None] if use_cache else ids
    return ids, scores
