"""Many requests, one model: who is in the batch, and where the memory comes from (chapter 09).

    StepTimes      what a step takes, measured: by rows that decode, by tokens that are prefilled
    static, continuous      who stays in the batch and who joins it
    simulate       a day of arrivals on a clock that moves by those times; nothing is computed
    Engine         continuous batching over a paged cache, with pre-emption; DryEngine: the same
                   decisions without a model
    poisson        requests that arrive at random

Sources: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models",
2022; Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", 2023.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch.utils.benchmark import timer

from .paged_cache import (
    BlockTables,
    OutOfBlocks,
    PagedCache,
    PagedRows,
    PagedTransformer,
    Table,
)
from .roofline import in_turns


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
    In its turn each runs twice, and the second time counts: the first finds other tasks' numbers in
    the processor's caches.
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
    twice = {(turn, *name): task for name, task in tasks.items() for turn in ("first", "second")}
    seconds = in_turns(twice, rounds).min()["second"]
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


class Engine:
    """Continuous batching over a paged cache; decodes greedily.

    When the pool is empty, the request that came last is pre-empted: its blocks are given back, it
    waits at the head of the queue, and what it had is computed again. The first in the batch is
    never pre-empted for another, so the engine always gets on.

    `now` is the engine's clock: it moves by the time that each forward pass took, or by
    `seconds(rows, each)` if that is given.
    """

    def __init__(
        self,
        model: PagedTransformer | None,
        cache: BlockTables,
        max_rows: int,
        share: bool = True,
        seconds: Callable[[int, int], float] | None = None,
        schedule: Schedule = continuous,
    ):
        self.model, self.cache, self.max_rows, self.share = model, cache, max_rows, share
        self.seconds, self.schedule = seconds, schedule
        self.waiting: Requests = []
        self.running: Requests = []
        self.now = 0.0
        self.prefilled = self.preempted = 0

    def submit(self, request: Request) -> None:
        """Queue a request. Raises ValueError if it cannot be served even alone."""
        positions = len(request.prompt) + request.new_tokens - 1
        needed, there = self.cache.blocks_for(positions), len(self.cache.pool.references)
        if needed > there:
            raise ValueError(
                f"A prompt of {len(request.prompt)} tokens and {request.new_tokens} new ones take "
                f"{needed} blocks of {self.cache.block_size} positions; the pool has {there}. Ask "
                "for fewer tokens, or give the cache more blocks: waiting would not help."
            )
        if not request.prompt or request.new_tokens < 1:
            raise ValueError("A request needs a prompt and at least one new token to be written.")
        self.waiting.append(request)

    def step(self) -> None:
        """One iteration: let requests join, then one more token for each in the batch.

        Raises OutOfBlocks if nothing can be done because others hold the pool's blocks.
        """
        _, joining = self.schedule(self.waiting, self.running, self.max_rows)
        joined = 0
        for request in joining:
            if not self.join(request):
                break
            joined += 1
        self.make_room()
        if self.running:
            self.run(self.running, [[request.text[-1]] for request in self.running])
        elif joining and not joined:
            raise OutOfBlocks(
                f"Nobody runs, and of {len(self.cache.pool.references)} blocks "
                f"{len(self.cache.pool.free)} are free: others hold the rest. Drop their tables."
            )

    def join(self, request: Request) -> bool:
        """Prefill a request's text, or return False if there is no room for it yet.

        There is, if after it everybody can go on for one more token: else it would only be
        pre-empted at once.
        """
        text = request.text
        table = self.cache.adopt(text) if self.share else Table()
        new = text[table.length :]
        last = len(request.prompt) + request.new_tokens - 1
        needed = self.cache.blocks_for(min(len(text) + 1, last)) - len(table.blocks)
        for other in self.running:
            needed += self.cache.blocks_for(other.table.length + 1) - len(other.table.blocks)
        if needed > len(self.cache.pool.free):
            self.cache.drop(table)
            return False
        self.cache.reserve(table, len(new))
        request.table = table
        self.waiting.remove(request)
        self.running.append(request)
        self.prefilled += len(new)
        self.run([request], [new])
        if self.share and request.table is not None:
            self.cache.publish(table, request.prompt)
        return True

    def make_room(self) -> None:
        """A place for one more position of each in the batch; who came last makes way."""
        for request in list(self.running):
            while request in self.running:
                try:
                    self.cache.reserve(request.table, 1)
                    break
                except OutOfBlocks:
                    self.preempt(self.running[-1])

    def preempt(self, request: Request) -> None:
        """Take its blocks from a request; it will be first to join again."""
        self.cache.drop(request.table)
        request.table = None
        self.running.remove(request)
        self.waiting.insert(0, request)
        self.preempted += 1

    def run(self, requests: Requests, new: list[list[int]]) -> None:
        """A forward pass over equally many new tokens of each; one token more for each."""
        start = timer()
        tokens = self.compute([request.table for request in requests], new)
        measured = timer() - start
        self.now += self.seconds(len(new), len(new[0])) if self.seconds else measured
        for request, token in zip(list(requests), tokens, strict=True):
            request.tokens.append(token)
            request.times.append(self.now)
            if request.done:
                self.cache.drop(request.table)
                request.table = None
                self.running.remove(request)

    @torch.no_grad()
    def compute(self, tables: list[Table], new: list[list[int]]) -> list[int]:
        """The likeliest next token of each sequence, after its new tokens have gone in."""
        ids = torch.tensor(new, device=self.model.device)
        logits, _ = self.model(ids, PagedRows(self.cache, tables), use_cache=True)
        return logits[:, -1].argmax(dim=-1).tolist()

    def serve(self, requests: Requests, after_step: Callable[[], object] = lambda: None) -> None:
        """Serve the requests, each from its arrival on; `after_step()` may look at the engine."""
        coming = deque(sorted(requests, key=lambda request: request.arrival))
        while coming or self.waiting or self.running:
            if not self.waiting and not self.running:
                self.now = max(self.now, coming[0].arrival)
            while coming and coming[0].arrival <= self.now:
                self.submit(coming.popleft())
            self.step()
            after_step()


class DryEngine(Engine):
    """The engine's decisions without a model: every token is 0."""

    def compute(self, tables: list[Table], new: list[list[int]]) -> list[int]:
        for table in tables:
            self.cache.claim(table, len(new[0]))
            table.length += len(new[0])
        return [0] * len(tables)
