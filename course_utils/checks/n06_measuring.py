"""What the check cells of the measurement call: stop-watch, turns, counts, slope (notebook 06)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..transformer import DecoderOnlyTransformer
from .common import refuse_known, verdict


@verdict
def check_token_times(token_times: Callable[..., list[float]]) -> str:
    """Notebook 06, exercise 1. Returns a verdict; raises AssertionError on a wrong stop-watch."""
    clock = _FakeClock()
    starts = []

    def tokens():
        for seconds in (4.0, 1.0, 1.0, 2.0):
            clock.now += seconds
            yield "token"

    def start():
        starts.append(clock.now)
        clock.now += 1.0
        return tokens()

    found = token_times(start, clock)
    if not isinstance(found, list):
        raise AssertionError(
            f"token_times gave a {type(found).__name__}, expected a list with one time per token."
        )
    if clock.now <= 101.0:
        raise AssertionError("No token was made: loop over start(), which yields them.")
    if len(starts) > 1:
        raise AssertionError(
            f"start() was called {len(starts)} times, and each call begins a generation. Call it "
            "once."
        )
    mistakes = [
        ([5.0, 1.0, 1.0, 2.0], "These are the times between tokens; wanted: since the start."),
        ([0.0, 1.0, 2.0, 4.0], "The first token took 5 s: read the clock before the loop starts."),
        ([4.0, 5.0, 6.0, 8.0], "Read the clock before start() is called: it already does work."),
        ([9.0], "Wanted: one time for each token, not only for the last."),
        ([9.0] * 4, "All tokens were made before the clock was read. Read it as each one comes."),
        ([105.0, 106.0, 107.0, 109.0], "Subtract what the clock showed at the start."),
    ]
    refuse_known(found, mistakes)
    if found != [5.0, 6.0, 7.0, 9.0]:
        raise AssertionError(
            "A generation took 5 s for its first token, then 1, 1 and 2 s. Expected the times "
            f"[5.0, 6.0, 7.0, 9.0] by the clock that was handed in, found {found}."
        )
    return "token_times is right: one time for each token, counted from the start."


class _FakeClock:
    """A clock that shows what it is told to, and whose tasks take known times."""

    def __init__(self) -> None:
        self.now = 100.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def task(self, name: str, seconds: float, first: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds if name in self.log else first
            self.log.append(name)

        return run


@verdict
def check_measure(measure: Callable[..., dict[str, list[float]]]) -> str:
    """Notebook 06, exercise 2. Returns a verdict; raises AssertionError if times are unfair."""
    clock = _FakeClock()
    tasks = {"A": clock.task("A", 2.0, 50.0), "B": clock.task("B", 3.0, 80.0)}
    found = measure(tasks, 3, clock)
    if not isinstance(found, dict) or set(found) != {"A", "B"}:
        raise AssertionError("measure returns a dict with a list of seconds for each name.")
    for name, seconds in found.items():
        if not isinstance(seconds, list):
            raise AssertionError(
                f"The seconds of {name} are a {type(seconds).__name__}, expected a list: all of "
                "them, in order."
            )
    if 50.0 in found["A"] or 80.0 in found["B"]:
        raise AssertionError(
            "The first run of each task, which is slow, is among the times. Run each task once "
            "before the rounds, and throw that time away."
        )
    if len(clock.log) != 8:
        raise AssertionError(
            f"Two tasks and three rounds made {len(clock.log)} runs, expected 8: one warm-up each, "
            "and three rounds of two."
        )
    if clock.log[2:] not in (["A", "B"] * 3, ["B", "A"] * 3):
        raise AssertionError(
            f"The runs came in the order {' '.join(clock.log)}. After the warm-up the tasks take "
            "turns: A B A B A B."
        )
    if found["A"] is found["B"]:
        raise AssertionError(
            "Both names have one and the same list (dict.fromkeys does that). Make one for each."
        )
    if all(0 < seconds < 0.1 for seconds in found["A"] + found["B"]):
        raise AssertionError("These are real seconds. Read the clock that was handed in: clock().")
    if found != {"A": [2.0] * 3, "B": [3.0] * 3}:
        raise AssertionError(
            f"A takes 2 s and B 3 s, three times each; found {found}. Is the clock read just "
            "before and just after each run?"
        )
    return "measure is right: a warm-up for each, then turns, and every time is kept."


@verdict
def check_operations(operations: Callable[[nn.Module, int, int], int]) -> str:
    """Notebook 06, exercise 3. Returns a verdict; raises AssertionError on a wrong count."""
    for shape in ((20, 12, 24, 2, 16), (50, 16, 64, 3, 32)):
        model = DecoderOnlyTransformer(*shape, num_heads=2, dropout=0.0).eval()
        for new, stored in ((6, 0), (1, 9), (3, 4), (1, 0)):
            with torch.no_grad():
                _, cache = model(torch.ones(1, max(stored, 1), dtype=torch.long), use_cache=True)
                cache = cache if stored else None
                with FlopCounterMode(display=False) as counter:
                    model(torch.ones(1, new, dtype=torch.long), past_kv=cache, use_cache=True)
            found, counted = operations(model, new, new + stored), counter.get_total_flops()
            if not isinstance(found, int | float):
                raise AssertionError(f"operations gave {found!r}, expected a number.")
            refuse_known((found - counted) / (2 * new), _too_many_weights(model))
            attended = 2 * model.num_layers * 2 * new * (new + stored)
            attended *= model.output_projection.in_features
            mistakes = [
                (
                    counted - attended + attended // model.num_layers,
                    "Attention is counted for one layer; there are num_layers.",
                ),
                (counted // 2, "That is half: each weight takes a multiplication and an addition."),
            ]
            refuse_known(found, mistakes)
            if found != counted:
                raise AssertionError(
                    f"{new} new tokens on {stored} cached ones: PyTorch counted {counted:,} "
                    f"operations, operations(model, {new}, {new + stored}) gives {found:,}."
                )
    return "operations is right: it agrees with what PyTorch counts, cached and uncached."


def _too_many_weights(model: nn.Module) -> list[tuple[int, str]]:
    """What is counted though it is in no matrix: how many numbers, and why they are not."""
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    biases = sum(m.bias.numel() for m in linears if m.bias is not None)
    matrices = "P is the weights of the matrices, which are in the nn.Linear modules."
    return [
        (
            tables + vectors,
            f"All parameters are counted. Embeddings are looked up and biases added: {matrices}",
        ),
        (tables, f"The embeddings are counted. They are looked up: {matrices}"),
        (vectors, f"Biases and norms are counted. They are no matrices: {matrices}"),
        (biases, f"The biases are counted. They are added: {matrices}"),
        (tables + biases, f"Embeddings and biases are counted: {matrices}"),
    ]


@verdict
def check_exponent(exponent: Callable[..., float]) -> str:
    """Notebook 06, exercise 4. Returns a verdict; raises AssertionError on a wrong slope."""
    tokens = np.array([10.0, 50.0, 100.0, 500.0, 1000.0])
    for power, factor in ((2.0, 0.01), (1.0, 3.0), (1.5, 1e-4), (0.0, 2.0)):
        seconds = factor * tokens**power
        found = exponent(tokens, seconds)
        if np.ndim(found) or not isinstance(found, float | np.floating):
            raise AssertionError(f"exponent gave {found!r}, expected one number: the slope.")
        if not np.isclose(found, power, atol=1e-6):
            refuse_known(found, _wrong_slopes(tokens, seconds) if power else [], atol=1e-8)
            raise AssertionError(
                f"For seconds = {factor:g} * tokens ** {power:g} the exponent is {power:g}; found "
                f"{found:.3f}."
            )
    bent = 0.01 * tokens**1.5 * np.array([1.0, 1.2, 0.9, 1.1, 1.05])
    found, best = exponent(tokens, bent), np.polyfit(np.log(tokens), np.log(bent), 1)[0]
    if not np.isclose(found, best, atol=1e-6):
        raise AssertionError(
            f"Five points that do not lie on a line have the slope {best:.4f}, found {found:.4f}. "
            "Fit a line through all of them (least squares), and do not round."
        )
    return "exponent is right on four power laws, and on points beside a line."


def _wrong_slopes(tokens: np.ndarray, seconds: np.ndarray) -> list[tuple[float, str]]:
    """Slopes of other lines than log seconds against log tokens, and what is forgotten there."""
    log_tokens, log_seconds = np.log(tokens), np.log(seconds)
    lines = [
        (tokens, seconds, "That is the slope in seconds per token. Take both logarithms."),
        (tokens, log_seconds, "Take the logarithm of the tokens too, not only of the times."),
        (log_tokens, seconds, "Take the logarithm of the times too, not only of the tokens."),
        (
            log_seconds,
            log_tokens,
            "Tokens and seconds are exchanged: log seconds against log tokens.",
        ),
    ]
    return [(float(np.polyfit(x, y, 1)[0]), advice) for x, y, advice in lines]
