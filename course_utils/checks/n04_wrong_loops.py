"""Loops with a cache that go wrong as students' do, and what those are told (notebook 04)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..generation import next_token

Loop = Callable[..., Iterator[Tensor]]
Fed = Callable[[Tensor, Tensor, bool, int], Tensor]


def _fed(text: Tensor, token: Tensor, use_cache: bool, prompt: int) -> Tensor:
    return token if use_cache else text


def _loop(
    feed: Fed = _fed,
    begin: Callable[[object], object] = lambda given: given,
    kept: Callable[[object, object], object] = lambda before, found: found,
    cached: Callable[[bool], bool] = lambda use_cache: use_cache,
    run_cached: Callable[[bool], bool] = lambda use_cache: use_cache,
) -> Loop:
    """The course's loop, with what may go wrong in it as functions.

    `feed` makes the next ids from the text so far (B, T), the new token (B, 1), `use_cache`
    and the length of the prompt; `begin` and `kept` choose the past_kv of the first run and of the
    next ones; `cached` and `run_cached` what the loop, and the model, take `use_cache` for.
    """

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
        text = ids = input_ids
        past_kv, use_cache = begin(past_kv), cached(use_cache)
        stopped = torch.zeros(len(ids), dtype=torch.bool)
        for _ in range(max_new_tokens):
            logits, found = model(ids, past_kv=past_kv, use_cache=run_cached(use_cache))
            past_kv = kept(past_kv, found)
            token = next_token(logits[:, -1], **sampling)
            if stop_token is not None:
                token = torch.where(stopped, stop_token, token)
                stopped = stopped | (token == stop_token)
            yield token
            if stop_token is not None and stopped.all():
                return
            text = torch.cat([text, token[:, None]], dim=1)
            ids = feed(text, token[:, None], use_cache, input_ids.size(1))

    return decode_loop


def _after(prompt: Tensor, token: Tensor) -> Tensor:
    return torch.cat([prompt, token], dim=1)


NEW = "With a cache the next ids are the new token alone, token[:, None]."
TEXT = "Without a cache the next ids are the whole text with the token after it."

WRONG_LOOPS = [
    (
        _loop(lambda text, token, use_cache, prompt: text),
        "The whole text is run again on top of what the cache holds. " + NEW,
    ),
    (
        _loop(lambda text, token, use_cache, prompt: token),
        "The new token alone is run, also where nothing else is known of the text. " + TEXT,
    ),
    (
        _loop(lambda text, token, use_cache, prompt: text if use_cache else token),
        "What goes in with a cache and what goes in without one are exchanged. " + NEW,
    ),
    (
        _loop(lambda text, token, use_cache, prompt: text[:, -2:] if use_cache else text),
        "The token before the new one is in the cache already. " + NEW,
    ),
    (
        _loop(lambda text, token, use_cache, prompt: text[:, :-1]),
        "The new token is missing in what is run next. " + NEW + " " + TEXT,
    ),
    (
        _loop(lambda text, token, use_cache, prompt: text[:, :1] if use_cache else text),
        "The first token of the prompt is run again and again. " + NEW,
    ),
    (
        _loop(lambda text, token, use_cache, prompt: text[:, :prompt]),
        "The prompt is run again and again: run `ids`, and make them anew at the end of the loop.",
    ),
    (
        _loop(lambda text, token, use_cache, prompt: text[:, :prompt] if use_cache else text),
        "The prompt is run again and again on top of what the cache holds. " + NEW,
    ),
    (
        _loop(lambda text, token, use_cache, prompt: _after(text[:, :prompt], token)),
        "Of the text, the tokens between the prompt and the last one are missing. "
        + NEW
        + " "
        + TEXT,
    ),
    (
        _loop(
            lambda text, token, use_cache, prompt: (
                token if use_cache else _after(text[:, :prompt], token)
            )
        ),
        "Of the text, the tokens between the prompt and the last one are missing. " + TEXT,
    ),
    (
        _loop(
            lambda text, token, use_cache, prompt: (
                _after(text[:, :prompt], token) if use_cache else text
            )
        ),
        "The prompt is run again with each new token. " + NEW,
    ),
    (
        _loop(
            lambda text, token, use_cache, prompt: text,
            begin=lambda given: None,
            kept=lambda before, found: None,
        ),
        "The whole text is run each time, and no cache is handed on: past_kv=past_kv. " + NEW,
    ),
    (
        _loop(
            lambda text, token, use_cache, prompt: text,
            run_cached=lambda use_cache: True,
        ),
        "The whole text is run on top of what a cache holds, also where use_cache=False: hand "
        "use_cache on. " + NEW,
    ),
    (
        _loop(
            lambda text, token, use_cache, prompt: token,
            run_cached=lambda use_cache: False,
        ),
        "The new token alone is run, and without a cache: hand use_cache on. " + TEXT,
    ),
    (
        _loop(lambda text, token, use_cache, prompt: token if use_cache else text[:, :prompt]),
        "The prompt alone is run again. " + TEXT,
    ),
    (
        _loop(
            lambda text, token, use_cache, prompt: (
                text[:, prompt - 1 : prompt] if use_cache else text
            )
        ),
        "The last token of the prompt is run again and again. " + NEW,
    ),
    (
        _loop(run_cached=lambda use_cache: True),
        "The model is run with a cache also where use_cache=False: hand use_cache on.",
    ),
    (
        _loop(run_cached=lambda use_cache: False),
        "The model is run without a cache also where use_cache=True: hand use_cache on.",
    ),
    (
        _loop(kept=lambda before, found: None),
        "What a run returns as past_kv is not kept: hand it in to the next run.",
    ),
    (
        _loop(kept=lambda before, found: before),
        "What a run returns as past_kv is not kept: hand it in to the next run.",
    ),
    (
        _loop(begin=lambda given: None, kept=lambda before, found: None),
        "past_kv is not handed on: what a run returns as past_kv goes into the next run.",
    ),
    (
        _loop(begin=lambda given: None),
        "past_kv that is handed to decode_loop is not used: it goes into the first run.",
    ),
    (_loop(cached=lambda use_cache: True), "use_cache=False still runs with a cache. " + TEXT),
    (_loop(cached=lambda use_cache: False), "use_cache=True runs without a cache. " + NEW),
]
