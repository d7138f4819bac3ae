"""Continuous batching over a paged cache, where the memory may run out (chapter 10).

    Engine         serves requests with a model, and pre-empts when no block is free
    DryEngine      the same decisions without a model

Sources: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models",
2022; Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", 2023.
"""

from collections import deque
from collections.abc import Callable

import torch
from torch.utils.benchmark import timer

from .block_tables import BlockTables, OutOfBlocks, Table
from .paged_cache import PagedRows, PagedTransformer
from .scheduling import Request, Requests, Schedule, continuous


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
