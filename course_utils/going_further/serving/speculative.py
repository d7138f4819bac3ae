"""Speculative decoding: guess several tokens cheaply, check them in one pass (chapter 10).

A *draft* is a function of the text so far (T,) and a number: it returns at most so many guesses
(g,), and the distributions (g, V) that they were drawn from. The model runs all guesses at once and
keeps those that it would have written itself; the cache is set back to where the text ends.

Sources: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023, and
Chen et al., "Accelerating Large Language Model Decoding with Speculative Sampling", 2023.

Shapes: B rows, g guesses, V vocab_size.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...generation import check_request

Draft = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def accept_greedy(guesses: Tensor, likeliest: Tensor) -> Tensor:
    """What greedy decoding writes next: the guesses (g,) as far as they are right, and one more.

    `likeliest` (g + 1,) is what the model finds likeliest before the first guess, ..., after the
    last. Returns 1 to g + 1 tokens.
    """
    right = (guesses == likeliest[:-1]).long().cumprod(dim=0).sum()
    return likeliest[: right + 1]


def residual(p: Tensor, q: Tensor) -> Tensor:
    """Where p (..., V) exceeds q (..., V), by how much, as a distribution: what to draw from when
    a guess from q was refused.

    Where p exceeds q nowhere, nothing is ever refused, and p itself is returned.
    Source: Leviathan et al., 2023, section 2.3.
    """
    more = (p - q).clamp(min=0)
    total = more.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, more / total.where(total > 0, 1), p)


def accept_sampled(
    guesses: Tensor, q: Tensor, p: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """How many guesses (B, g) to keep, (B,), and the token that follows them, (B,).

    The guesses were drawn from q (B, g, V); p (B, g + 1, V) is the model's. A guess x is kept with
    probability min(1, p(x) / q(x)). After the first that is not, the next token is drawn from the
    residual; after all of them, from p: nothing was guessed there, which is a q of zeros.
    Source: Leviathan et al., 2023, algorithm 1.
    """
    chosen = guesses[..., None]
    ratio = (p[:, :-1].gather(-1, chosen) / q.gather(-1, chosen)).squeeze(-1)
    lots = torch.rand(ratio.shape, generator=generator, dtype=p.dtype, device=p.device)
    kept = (lots < ratio).long().cumprod(dim=1).sum(dim=1)
    rows = torch.arange(len(kept), device=kept.device)
    after = residual(p[rows, kept], F.pad(q, (0, 0, 0, 1))[rows, kept])
    return kept, torch.multinomial(after, 1, generator=generator).squeeze(-1)


@torch.no_grad()
def speculate(
    model: nn.Module,
    input_ids: Tensor,
    max_new_tokens: int,
    draft: Draft,
    num_guesses: int = 4,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    past_kv: object = None,
) -> tuple[Tensor, list[int]]:
    """The prompt (1, T) and its continuation, and how many tokens each pass of the model brought.

    At temperature 0 the ids are those of greedy decoding; else they are drawn from the same
    distribution as by sampling (not with the same random numbers). `past_kv` is an empty cache to
    use instead of the model's own kind. Raises ValueError for a request that cannot be carried out.
    """
    check_request(model, input_ids, max_new_tokens, temperature)
    if input_ids.size(0) != 1:
        raise ValueError(f"speculate takes one prompt (1, T), not {input_ids.size(0)} of them.")
    past_kv = model.new_cache(1) if past_kv is None else past_kv
    ids, end, brought = input_ids, input_ids.size(1) + max_new_tokens, []
    while ids.size(1) < end:
        room = end - ids.size(1) - 1  # a pass brings one token more than it keeps guesses
        guesses, q = draft(ids[0], min(num_guesses, room))
        new = torch.cat([ids[:, past_kv.length :], guesses[None]], dim=1)
        logits, past_kv = model(new, past_kv=past_kv, use_cache=True)
        logits = logits[0, -len(guesses) - 1 :]
        if temperature == 0:
            tokens = accept_greedy(guesses, logits.argmax(dim=-1))
        else:
            p = torch.softmax(logits.double() / temperature, dim=-1)
            kept, last = accept_sampled(guesses[None], q[None].double(), p[None], generator)
            tokens = torch.cat([guesses[: kept[0]], last])
        ids = torch.cat([ids, tokens[None]], dim=1)
        past_kv.truncate(ids.size(1) - 1)  # the last token has not been run yet
        brought.append(len(tokens))
    return ids, brought


def certain(guesses: Tensor, vocab_size: int) -> Tensor:
    """The distributions (g, V) of guesses (g,) that were not drawn but chosen."""
    return F.one_hot(guesses, vocab_size).double()


class PromptLookup:
    """Guesses what came next when the text's last `ngram` tokens were last there; nothing if never.

    Source: Saxena, "Prompt Lookup Decoding", 2023.
    """

    def __init__(self, vocab_size: int, ngram: int = 2):
        self.vocab_size, self.ngram = vocab_size, ngram

    def __call__(self, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
        guesses = ids[:0]
        if len(ids) > self.ngram:
            same = (ids[:-1].unfold(0, self.ngram, 1) == ids[-self.ngram :]).all(dim=1)
            places = same.nonzero()
            if len(places):
                start = places[-1, 0] + self.ngram
                guesses = ids[start : start + count]
        return guesses, certain(guesses, self.vocab_size)


class CountTable:
    """Guesses from counts of which token followed which `context` tokens in some texts."""

    def __init__(self, texts: Iterable[list[int]], vocab_size: int, context: int = 2):
        self.vocab_size, self.context = vocab_size, context
        counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            for end in range(context, len(text)):
                counts[tuple(text[end - context : end])][text[end]] += 1
        self.likeliest = {seen: found.most_common(1)[0][0] for seen, found in counts.items()}

    def __call__(self, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
        seen, guesses = ids[-self.context :].tolist(), []
        while len(guesses) < count:
            token = self.likeliest.get(tuple(seen[-self.context :]))
            if token is None:
                break
            seen.append(token)
            guesses.append(token)
        found = torch.tensor(guesses, dtype=torch.long, device=ids.device)
        return found, certain(found, self.vocab_size)


class ModelDraft:
    """Guesses by a smaller model, with a cache of its own, which is rolled back like the other."""

    def __init__(
        self,
        model: nn.Module,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        self.model, self.temperature, self.generator = model, temperature, generator
        self.past_kv = model.new_cache(1)
        self.run = torch.empty(0, dtype=torch.long, device=model.device)

    @torch.no_grad()
    def __call__(self, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
        self.roll_back(ids)
        start, rows = len(ids), []
        for _ in range(count):
            new = ids[self.past_kv.length :]
            logits, _ = self.model(new[None], past_kv=self.past_kv, use_cache=True)
            self.run = ids
            if self.temperature == 0:
                token = logits[0, -1].argmax(dim=-1, keepdim=True)
                rows.append(certain(token, logits.size(-1)))
            else:
                q = torch.softmax(logits[0, -1:].double() / self.temperature, dim=-1)
                token = torch.multinomial(q[0], 1, generator=self.generator)
                rows.append(q)
            ids = torch.cat([ids, token])
        vocab_size = self.model.output_projection.out_features
        q = torch.cat(rows) if rows else torch.empty(0, vocab_size, dtype=torch.double)
        return ids[start:], q

    def roll_back(self, ids: Tensor) -> None:
        """Keep of the cache what was run for the same tokens as `ids`, but for the last of them."""
        both = min(len(self.run), len(ids) - 1)
        differ = (self.run[:both] != ids[:both]).nonzero()
        keep = int(differ[0, 0]) if len(differ) else both
        self.past_kv.truncate(min(keep, self.past_kv.length))


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    """How probable counts (n,) at least as far from the expected ones are (Pearson's test).

    `probabilities` (n,) sum to 1. Small, such as 1e-6: the counts hardly come from them. Expected
    counts should be 5 or more.
    """
    expected = counts.sum() * probabilities.double()
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.double)
    return torch.special.gammaincc(freedom, statistic / 2).item()
