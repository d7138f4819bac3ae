"""Allowed uses of a model with a cache. Each is a function (model, right) -> is it wrong?"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Use = Callable[[nn.Module, nn.Module], bool]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}


@dataclass
class State:
    """Where a script is: the tokens so far, padding included, and their cache."""

    seen: Tensor
    cache: Any
    padding: Tensor


def words(rows: int, length: int, seed: int = 0) -> Tensor:
    """Random token ids (rows, length), none of them the first or the last of the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 49, (rows, length), generator=generator)


def differs(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return True
    return not torch.allclose(found, expected, 0, TOLERANCE[expected.dtype])


@torch.no_grad()
def off(logits: Tensor, right: nn.Module, state: State) -> bool:
    """Is any row's newest part other than what its text alone, uncached, leads to?"""
    for row, text, padding in zip(logits, state.seen, state.padding, strict=True):
        text = text[None, padding:]
        newest = min(len(row), text.size(1))
        if newest and differs(row[-newest:], right(text)[0][0, -newest:]):
            return True
    return False


def script(*steps: Any, rows: int = 1, padding: tuple = (), seed: int = 0) -> Use:
    """Feed portions: a number of new tokens, or a list of their ids; or call other steps."""

    @torch.no_grad()
    def wrong(model, right):
        begin = torch.tensor(padding or (0,) * rows)
        cache = model.padded_cache(begin) if padding else None
        state = State(words(len(begin), 0), cache, begin)
        for number, step in enumerate(steps):
            if callable(step):
                step(model, state)
                continue
            new = tokens(step, state, 100 * seed + number)
            logits, state.cache = model(new, past_kv=state.cache, use_cache=True)
            state.seen = torch.cat([state.seen, new], dim=1)
            if off(logits, right, state):
                return True
        return False

    return wrong


def tokens(step: int | list, state: State, seed: int) -> Tensor:
    if isinstance(step, int):
        return words(len(state.seen), step, seed)
    return torch.tensor(step).view(len(state.seen), -1)


def cut(length: int) -> Callable:
    """A step of a script: forget what comes from `length` on."""

    def step(model, state):
        result = state.cache.truncate(length)
        state.cache = state.cache if result is None else result
        state.seen = state.seen[:, :length]

    return step


def pick(*rows: int) -> Callable:
    """A step of a script: row i becomes what row rows[i] was."""

    def step(model, state):
        index = torch.tensor(rows)
        result = state.cache.reorder(index)
        state.cache = state.cache if result is None else result
        state.seen, state.padding = state.seen[index], state.padding[index]

    return step


def uncached_call(model, state):
    """A step of a script: another text runs without a cache."""
    model(words(1, 3, seed=9))


def again(*uses: Use) -> Use:
    """One use after the other, of the same model; the last one is judged."""

    def wrong(model, right):
        return [use(model, right) for use in uses][-1]

    return wrong


def together(*prompts: int, steps: int = 2) -> Use:
    """Several texts are begun; then all of them go on in turn, token by token."""

    @torch.no_grad()
    def wrong(model, right):
        texts = [words(1, prompt + steps, seed) for seed, prompt in enumerate(prompts)]
        begun = zip(texts, prompts, strict=True)
        caches = [model(text[:, :prompt], use_cache=True)[1] for text, prompt in begun]
        for step in range(1, steps + 1):
            for i, text in enumerate(texts):
                seen = text[:, : prompts[i] + step]
                logits, caches[i] = model(seen[:, -1:], past_kv=caches[i], use_cache=True)
                if differs(logits, right(seen)[0][:, -1:]):
                    return True
        return False

    return wrong


def generated(
    prompt: int | list, steps: int, rows: int = 1, temperature: float = 0, seed: int = 0
) -> Use:
    """Generate with the cache, and with the same draws without it."""

    def wrong(model, right):
        ids = words(rows, prompt, seed) if isinstance(prompt, int) else torch.tensor([prompt])
        return other_text(model, right, ids, steps, temperature)

    return wrong


def turns(prompt: int, steps: int, more: int, steps_later: int) -> Use:
    """Generate, add to what came out, and generate again."""

    def wrong(model, right):
        first = model.generate(words(1, prompt), steps, temperature=0)
        ids = torch.cat([first, words(1, more, seed=1)], dim=1)
        return other_text(model, right, ids, steps_later, 0)

    return wrong


def other_text(
    model: nn.Module, right: nn.Module, ids: Tensor, steps: int, temperature: float
) -> bool:
    torch.manual_seed(0)
    found = model.generate(ids, steps, temperature=temperature)
    torch.manual_seed(0)
    expected = right.generate(ids, steps, temperature=temperature, use_cache=False)
    return not torch.equal(found, expected)


def cast(use: Use, dtype: torch.dtype) -> Use:
    """The same use of copies of the models in another dtype."""

    def wrong(model, right):
        return use(copy.deepcopy(model).to(dtype), copy.deepcopy(right).to(dtype))

    return wrong


def crashes(use: Use) -> Use:
    """An error is what is wrong."""

    def wrong(model, right):
        try:
            use(model, right)
        except (RuntimeError, ValueError):
            return True
        return False

    return wrong


@torch.no_grad()
def moved(model, right):
    """Run on the CPU, then on another device, one that knows shapes but no numbers."""
    model = copy.deepcopy(model)
    for device in ("cpu", "meta"):
        model.to(device)
        _, cache = model(words(1, 4).to(device), use_cache=True)
        model(words(1, 2).to(device), past_kv=cache, use_cache=True)


@torch.no_grad()
def one_more(model, right):
    """Past the last position: no error is what is wrong."""
    _, cache = model(words(1, model.max_seq_len), use_cache=True)
    try:
        model(words(1, 1), past_kv=cache, use_cache=True)
    except (RuntimeError, ValueError):
        return False
    return True
