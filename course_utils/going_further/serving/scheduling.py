"""Many requests, one model: who is in the batch, and what that costs (chapter 10).

    static, continuous      who stays in the batch and who joins it
    StepTimes      what a step takes, by rows that decode, by tokens that are prefilled: `measure`
    poisson        requests that arrive at random
    simulate       a day of arrivals on a clock that moves by those times; nothing is computed
    report         what became of the requests

Source: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models",
2022.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from ..speed.roofline import in_turns
from .block_tables import Table
from .paged_cache import PagedCache, PagedRows, PagedTransformer


@dataclass(eq=False)
class Request:
    """A prompt and how many tokens are wanted after it. Times are in seconds."""

    prompt: list[int]
    new_tokens: int
    arrival: float = 0.0
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    table: Table | None = None

    @property
    def done(self) -> bool:
        return len(self.tokens) >= self.new_tokens

    @property
    def text(self) -> list[int]:
        """The prompt and what was written so far."""
        return self.prompt + self.tokens


Requests = list[Request]
Schedule = Callable[[Requests, Requests, int], tuple[Requests, Requests]]


def static(waiting: Requests, running: Requests, max_rows: int) -> tuple[Requests, Requests]:
    """Who stays in the batch and who joins it: nobody joins until all in it are done."""
    if any(not request.done for request in running):
        return running, []
    return [], waiting[:max_rows]


def continuous(waiting: Requests, running: Requests, max_rows: int) -> tuple[Requests, Requests]:
    """Who stays in the batch and who joins it: who is done leaves, and others take the rows.

    Source: Yu et al., 2022, section 4.1 ("iteration-level scheduling").
    """
    stay = [request for request in running if not request.done]
    return stay, waiting[: max_rows - len(stay)]


@dataclass
class StepTimes:
    """Seconds of one forward pass, between and beyond the measured points on straight lines.

    `decode` by rows, each with one new token; `prefill` by tokens of one prompt.
    """

    decode: pd.Series
    prefill: pd.Series

    def __call__(self, rows: int, each: int) -> float:
        """Seconds for `rows` sequences with `each` new tokens."""
        if each == 1:
            return float(np.interp(rows, self.decode.index, self.decode))
        return float(np.interp(rows * each, self.prefill.index, self.prefill))


@torch.no_grad()
def measure(
    model: PagedTransformer,
    rows: Sequence[int] = (1, 2, 4, 8, 16, 32),
    prompts: Sequence[int] = (1, 32, 64, 128, 256),
    positions: int = 128,
    rounds: int = 9,
) -> StepTimes:
    """Time the model: decoding with so many rows of `positions` each, prefilling such prompts.

    Of each, the fastest of the rounds, which take turns: what disturbs a step only lengthens it.
    In its turn each runs twice, and the second time counts.
    """
    tasks: dict[tuple[str, int], Callable[[], object]] = {}
    for n in rows:
        filled = torch.zeros(n, positions, dtype=torch.long, device=model.device)
        past_kv = model(filled, use_cache=True)[1]

        def decode(past_kv: PagedRows = past_kv, new: torch.Tensor = filled[:, :1]) -> None:
            past_kv.truncate(positions)
            model(new, past_kv, use_cache=True)[0].argmax(-1).tolist()

        tasks["decode", n] = decode
    cache = PagedCache(model, -(-max(prompts) // model.block_size), model.block_size)
    for n in prompts:
        prompt = torch.zeros(1, n, dtype=torch.long, device=model.device)

        def prefill(prompt: torch.Tensor = prompt) -> None:
            past_kv = PagedRows(cache, [Table()])
            model(prompt, past_kv, use_cache=True)[0][:, -1].argmax(-1).tolist()
            past_kv.truncate(0)

        tasks["prefill", n] = prefill
    seconds = in_turns(tasks, rounds, settled=True).min()
    return StepTimes(seconds["decode"], seconds["prefill"])


def poisson(
    rate: float, count: int, seed: int, prompts: Sequence[list[int]], mean_tokens: float
) -> Requests:
    """`count` requests, on average `rate` a second, each independent of the others.

    Prompts are drawn from `prompts`. How many tokens are wanted is 2 or more, `mean_tokens` on
    average and geometric: many are short, and some are several times as long.
    """
    rng = random.Random(seed)
    found, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(rate)
        wanted = 2 + int(rng.expovariate(1 / (mean_tokens - 1.5)))
        found.append(Request(rng.choice(prompts), wanted, now))
    return found


def simulate(
    requests: Requests, seconds: Callable[[int, int], float], max_rows: int, schedule: Schedule
) -> list[int]:
    """Serve the requests on a clock that moves by `seconds(rows, each)`; fills in their times.

    Returns how many rows of each decoding step were of use. A row whose request is done costs as
    much as the others, as long as it stays.
    """
    coming = deque(sorted(requests, key=lambda request: request.arrival))
    waiting, running, useful, now = [], [], [], 0.0
    while coming or waiting or any(not request.done for request in running):
        if not waiting and all(request.done for request in running):
            now = max(now, coming[0].arrival)
        while coming and coming[0].arrival <= now:
            waiting.append(coming.popleft())
        running, joining = schedule(waiting, running, max_rows)
        for request in joining:
            waiting.remove(request)
            now += seconds(1, len(request.prompt))
            request.tokens.append(0)
            request.times.append(now)
        running = running + joining
        unfinished = [request for request in running if not request.done]
        now += seconds(len(running), 1) if unfinished else 0.0
        useful.append(len(unfinished))
        for request in unfinished:
            request.tokens.append(0)
            request.times.append(now)
    return useful


def report(requests: Requests) -> pd.Series:
    """What became of the requests: tokens a second, and seconds that a request waited per token.

    "latency" is from the arrival to the last token, divided by the tokens, so that long requests
    count like short ones (Yu et al., 2022); "first" is from the arrival to the first token.
    """
    span = max(r.times[-1] for r in requests) - min(r.arrival for r in requests)
    latency = [(r.times[-1] - r.arrival) / r.new_tokens for r in requests]
    return pd.Series(
        {
            "tokens/s": sum(r.new_tokens for r in requests) / span,
            "latency": np.median(latency),
            "latency of the slowest 5 %": np.quantile(latency, 0.95),
            "first": np.median([r.times[0] - r.arrival for r in requests]),
        }
    )
