"""Models that generate in other ways, or not at all, or are put together otherwise."""

import torch
from torch import nn

from course_utils.generation import generate
from course_utils.kv_cache import PreallocatedCache
from course_utils.transformer import DecoderOnlyTransformer

from .parts import Repacked, right


@right
class StopsAtEndToken(DecoderOnlyTransformer):
    """A row that has produced token 7 repeats it; when all rows have, generate returns early."""

    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        return generate(self, input_ids, max_new_tokens, temperature, use_cache, stop_token=7)


class ByHand(Repacked):
    """A loop that draws from the softmax, whatever the temperature but 0."""

    def draw(self, logits, temperature):
        return torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1)

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        past_kv, new = None, input_ids
        for _ in range(max_new_tokens):
            logits, past_kv = self(new, past_kv, use_cache)
            token = self.draw(logits[:, -1], temperature)
            input_ids = torch.cat([input_ids, token], dim=1)
            new = token if use_cache else input_ids
        return input_ids


@right
class GenerateByHand(ByHand):
    """Its generate is a loop of its own, which cannot do temperature 0."""


@right
class StopsByHand(ByHand):
    """Its generate ends as soon as any row has produced token 11."""

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        past_kv, new = None, input_ids
        for _ in range(max_new_tokens):
            logits, past_kv = self(new, past_kv, use_cache)
            token = self.draw(logits[:, -1], temperature)
            input_ids = torch.cat([input_ids, token], dim=1)
            if (token == 11).any():
                break
            new = token if use_cache else input_ids
        return input_ids


@right
class PromptInTwoPortions(ByHand):
    """Its generate feeds the last token of the prompt by itself."""

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        if not use_cache:
            return super().generate(input_ids, max_new_tokens, temperature, use_cache)
        past_kv = None
        if input_ids.size(1) > 1:
            _, past_kv = self(input_ids[:, :-1], None, True)
        for _ in range(max_new_tokens):
            logits, past_kv = self(input_ids[:, -1:], past_kv, True)
            token = self.draw(logits[:, -1], temperature)
            input_ids = torch.cat([input_ids, token], dim=1)
        return input_ids


@right
class FeedsItsLastTokenToo(ByHand):
    """Its generate feeds every token that it produces, the last one too if there is room."""

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        logits, past_kv = self(input_ids, None, use_cache)
        for _ in range(max_new_tokens):
            token = self.draw(logits[:, -1], temperature)
            input_ids = torch.cat([input_ids, token], dim=1)
            if input_ids.size(1) <= self.max_seq_len:
                new = token if use_cache else input_ids
                logits, past_kv = self(new, past_kv, use_cache)
        return input_ids


@right
class GuessesAhead(DecoderOnlyTransformer):
    """For one greedy row, generate guesses that tokens repeat, and takes wrong guesses back."""

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True):
        if not use_cache or temperature > 1e-6 or input_ids.size(0) > 1:
            return generate(self, input_ids, max_new_tokens, temperature, use_cache)
        cache, end = PreallocatedCache(self, 1), input_ids.size(1) + max_new_tokens
        while input_ids.size(1) < end:
            new = input_ids[:, cache.length :]
            guess = new[:, -1:].expand(1, min(2, end - input_ids.size(1) - 1))
            logits, cache = self(torch.cat([new, guess], dim=1), cache, True)
            best = logits[:, new.size(1) - 1 :].argmax(-1)
            right_guesses = int((best[:, :-1] == guess).int().cumprod(1).sum())
            input_ids = torch.cat([input_ids, best[:, : right_guesses + 1]], dim=1)
            cache.truncate(input_ids.size(1) - 1)
        return input_ids


@right
class NoGenerate(Repacked):
    """The model has no generate."""

    @property
    def generate(self):
        raise AttributeError("This model does not generate.")


@right
class Wrapped(nn.Module):
    """A module around the course's model; its state dict has the names of the inner one."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.inner = DecoderOnlyTransformer(*args, **kwargs)

    @property
    def token_embedding(self):
        return self.inner.token_embedding

    @property
    def pos_embedding(self):
        return self.inner.pos_embedding

    def forward(self, input_ids, past_kv=None, use_cache=False):
        return self.inner(input_ids, past_kv, use_cache)

    def generate(self, *args, **kwargs):
        return self.inner.generate(*args, **kwargs)

    def state_dict(self, *args, **kwargs):
        return self.inner.state_dict(*args, **kwargs)

    def load_state_dict(self, *args, **kwargs):
        return self.inner.load_state_dict(*args, **kwargs)


class Shell(nn.Module):
    """What the course's model is made of, in reach of the caller."""

    def __init__(self, inner):
        super().__init__()
        self.token_embedding, self.pos_embedding = inner.token_embedding, inner.pos_embedding
        self.layers, self.norm = inner.layers, inner.norm
        self.dropout, self.output_projection = inner.dropout, inner.output_projection


@right
class SharesItsParts(Shell):
    """A module that has the parts of a hidden model and leaves the work to that one."""

    def __init__(self, *args, **kwargs):
        inner = DecoderOnlyTransformer(*args, **kwargs)
        super().__init__(inner)
        self.hidden = (inner,)

    def forward(self, input_ids, past_kv=None, use_cache=False):
        return self.hidden[0](input_ids, past_kv, use_cache)

    def generate(self, *args, **kwargs):
        return self.hidden[0].generate(*args, **kwargs)
