"""Wrong caches: every call is right, and `generate` is not (notebook 05)."""

import torch

from ..generation import next_token
from ..kv_cache import GrowingCache
from ..transformer import DecoderOnlyTransformer
from .entry import CacheBug, bug

BUGS: list[CacheBug] = []


@bug(
    BUGS,
    "generate_keeps_its_cache",
    "generate keeps its cache in the model and begins the next text on top of it",
    "the first generation is right; in the next one, the first one's text comes before the prompt",
    "where the cache of a generation is made: inside generate, each time",
    "rasbt/LLMs-from-scratch#925",
)
class GenerateKeepsItsCache(DecoderOnlyTransformer):
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True, **options):
        if use_cache:
            kept = getattr(self, "kept", None)
            room = self.max_seq_len - input_ids.size(1) - max_new_tokens
            if kept is None or kept.batch_size != len(input_ids) or kept.length > room:
                self.kept = GrowingCache(self, len(input_ids))
            options["past_kv"] = self.kept
        return super().generate(input_ids, max_new_tokens, temperature, use_cache, **options)


@bug(
    BUGS,
    "likeliest_fed_back",
    "the next token is drawn, and the likeliest one is fed into the cache in its place",
    "right as long as decoding is greedy; drawn texts answer words that nobody has said",
    "the token that is appended to the text is the token that goes in next",
)
class LikeliestFedBack(DecoderOnlyTransformer):
    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True, **options):
        if not use_cache:
            return super().generate(input_ids, max_new_tokens, temperature, False, **options)
        ids, new, past_kv = input_ids, input_ids, None
        for _ in range(max_new_tokens):
            logits, past_kv = self(new, past_kv=past_kv, use_cache=True)
            token = next_token(logits[:, -1], temperature)
            ids = torch.cat([ids, token[:, None]], dim=1)
            new = logits[:, -1:].argmax(-1)
        return ids
