"""The workers of a Dask cluster, as a place where submissions are judged.

Dask gives a task whose worker has died to another worker, and again to another. A submission is
judged on two workers at most: a second time it is alone on the cluster, so that what ran beside it
the first time loses nothing. Source: https://distributed.dask.org/en/stable/killed.html
"""

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import distributed

from . import judge, sandbox
from .answers import Answer
from .batch import Unfinished
from .gradebook import versions

JOINING = 10.0  # seconds for the first worker to join
# Seconds without any worker, or without an answer of the scheduler; for each exercise, where the
# workers judge the course's own answers.
PATIENCE = 120.0
PAUSE = 0.2


class NotReady(judge.NotFitToGrade):
    """The cluster has no workers, or some that cannot grade; nothing was graded."""


class Ended(RuntimeError):
    """The worker that had begun to judge a submission is gone."""


LOST = Ended, distributed.KilledWorker, TimeoutError


class Work:
    """A submission on the cluster. `mark` names what is set there once it is being judged."""

    def __init__(self, client: distributed.Client, given: tuple):
        self.client, self.given = client, given
        self.found: judge.Judged | Exception | None = None
        self.start()

    def start(self) -> None:
        self.mark = f"grading-{uuid.uuid4().hex}"
        work = (_judge_once, self.mark, versions(), *self.given)
        self.future = self.client.submit(*work, pure=False)

    def fetch(self) -> bool:
        """Take what was found from the cluster; whether it was there, and not on a lost worker.

        Raises TimeoutError if the scheduler does not answer.
        """
        try:
            self.found = self.future.result(timeout=PATIENCE)
        except Exception as error:
            self.found = error
        self.future.release()
        clear = self.client.scheduler.event_clear
        self.client.sync(clear, name=self.mark, callback_timeout=PATIENCE)
        return not isinstance(self.found, LOST)

    def result(self) -> judge.Judged:
        """Raises what judging it raised, RuntimeError if its second worker has ended too."""
        if isinstance(self.found, LOST):
            raise RuntimeError("two workers ended while they judged it")
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def _judge_once(mark: str, expected: str, *given: object) -> judge.Judged:
    """On a worker: judge, unless it was begun before on a worker that is gone."""
    begun = distributed.Event(mark)
    if begun.is_set():
        raise Ended("its worker has ended")
    begun.set()
    if versions() != expected:
        raise RuntimeError(f"its worker has {versions()}")
    return judge.judge(*given)


def _facts() -> tuple[str | None, str]:
    """On a worker: why it cannot isolate students' code, and its versions."""
    return sandbox.why_not(), versions()


async def _judge_course(task: judge.Task) -> None:
    """On a worker: what `judge.judge_course` says there, while the worker stays reachable."""
    await asyncio.to_thread(judge.judge_course, task)


@contextmanager
def on_dask(address: str, task: judge.Task) -> Iterator["Cluster"]:
    """Raises NotReady unless there are workers, all of which can grade; Unfinished; OSError."""
    log = logging.getLogger("distributed.client")
    level = log.level
    try:
        with distributed.Client(address, timeout="10s") as client:
            log.setLevel(logging.CRITICAL)  # `_reached` says it if the scheduler is lost
            cluster = Cluster(client, task)
            cluster.check()
            yield cluster
    finally:
        log.setLevel(level)


class Cluster:
    """Judges on all workers. Before the first submission, each judges the course's own answers."""

    def __init__(self, client: distributed.Client, task: judge.Task):
        self.client, self.task = client, task
        self.address, self.fit = client.scheduler.address, False

    def check(self) -> None:
        """Raises NotReady unless there are workers, and all have what grading needs."""
        with self._reached():
            try:
                self.client.wait_for_workers(1, timeout=JOINING)
            except TimeoutError:
                raise NotReady(
                    f"The cluster at {self.address} has no workers, so nothing was graded. Start "
                    f"some on machines with this course: dask worker {self.address}"
                ) from None
            self._ask(self._lacking, _facts)

    def submit(self, given: dict[str, Answer], student: str) -> Work:
        with self._reached():
            if not self.fit:
                self._ask(lambda said: str(said or ""), _judge_course, self.task)
                self.fit = True
            return Work(self.client, (given, self.task, student))

    def completed(self, works: list[Work]) -> Iterator[Work]:
        """Each as it is done; at the end, one by one, those that were on a worker that is gone.

        Raises Unfinished. `works` is emptied: a cluster does again what a lost worker had done, for
        as long as somebody holds it.
        """
        waiting, again = {work.future: work for work in works}, []
        works.clear()
        with self._reached():
            for future in self._done([*waiting]):
                work = waiting.pop(future)
                if work.fetch():
                    yield work
                else:
                    again.append(work)
            for work in again:
                work.start()
                for _ in self._done([work.future]):
                    work.fetch()
                    yield work

    def _done(self, futures: list[distributed.Future]) -> Iterator[distributed.Future]:
        running, seen = distributed.as_completed(futures), time.monotonic()
        futures.clear()
        while not running.is_empty():
            done = running.next_batch(block=False)
            if any(future.cancelled() for future in done):
                raise ConnectionError("it has forgotten what it was given")
            yield from done
            if done or self._workers():
                seen = time.monotonic()
            if time.monotonic() > seen + PATIENCE:
                raise Unfinished(f"The workers of {self.address} are gone.")
            if not done:
                time.sleep(PAUSE)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Raises Unfinished if the scheduler is lost meanwhile, or does not answer."""
        try:
            yield
        except TimeoutError as error:
            raise Unfinished(f"The Dask scheduler at {self.address} does not answer.") from error
        except (OSError, asyncio.CancelledError) as error:
            raise Unfinished(f"The Dask scheduler at {self.address} is gone.") from error

    def _workers(self) -> dict[str, int]:
        """Raises TimeoutError if the scheduler does not say which there are."""
        return self.client.sync(self.client.scheduler.ncores, callback_timeout=PATIENCE)

    def _lacking(self, said: object) -> str:
        """What a worker with these facts, or with this error, lacks; nothing if it can grade."""
        if isinstance(said, Exception):
            return f"does not have this course ({type(said).__name__}: {said})"
        why, has = said
        if has != versions():
            return f"has {has}, and here is {versions()}"
        return f"cannot isolate students' code: {why}" if why and self.task.isolated else ""

    def _ask(self, problem: Callable[[object], str], function: Callable, *given: object) -> None:
        """Call a function on every worker. Raises NotReady if what one says is a problem.

        Raises TimeoutError if the scheduler does not answer.
        """
        workers, limit = defaultdict(list), PATIENCE * max(len(self.task.expected), 1)
        # `run` hands the limit on to `Client.sync`, which knows it by this name.
        answers = self.client.run(function, *given, on_error="return", callback_timeout=limit)
        for worker, said in answers.items():
            workers[problem(said)].append(worker)
        workers.pop("", None)
        if workers:
            lines = [f"  {', '.join(sorted(names))}: {what}" for what, names in workers.items()]
            raise NotReady(
                "Some workers of the cluster cannot grade, so nothing was graded:\n"
                + "\n".join(lines)
                + "\nInstall there what is here, or end these workers, and start again."
            )
