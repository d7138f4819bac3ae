"""What can be seen of a wrong cache: where it is wrong, and what it looks at (notebook 05)."""

from collections.abc import Callable, Sequence
from unittest import mock

import pandas as pd
import torch
from torch import Tensor, nn

from ..attention import attention_weights
from ..evaluation import precise_copy
from ..transformer import DecoderOnlyTransformer
from .catalogue import CATALOGUE
from .probes import AFTER_OTHERS, EXTRAS, agree, evidence, outcome, probes


def survey(reference: DecoderOnlyTransformer) -> dict[str, dict[str, bool]]:
    """For each entry of the catalogue: which probes, each on a model of its own, see that it is
    wrong."""
    reference, tolerance = precise_copy(reference)
    runs = probes(reference)
    expected = {name: outcome(run, reference) for name, run in runs.items()}
    return {
        entry.name: {
            name: not agree(
                _by_itself(name, runs, entry.build(reference)), expected[name], tolerance, name
            )
            for name in runs
        }
        for entry in CATALOGUE.values()
    }


def symptoms(model: nn.Module, reference: DecoderOnlyTransformer) -> pd.DataFrame:
    """How the model fares in each probe but the `EXTRAS`, and from which position on it is wrong.

    Each probe gets a copy of the model as it came; some of them run another text first.
    """
    reference, tolerance = precise_copy(reference)
    runs = probes(reference)
    rows = {}
    for name in [name for name in runs if name not in EXTRAS]:
        found = _by_itself(name, runs, precise_copy(model)[0])
        expected = outcome(runs[name], reference)
        rows[name] = "right"
        if not agree(found, expected, tolerance, name):
            rows[name] = evidence("", found, expected, tolerance).removeprefix(": ")
    return pd.DataFrame({"the logits": rows})


def _by_itself(name: str, runs: dict[str, Callable], model: nn.Module) -> Tensor | str:
    """The outcome of one probe on a model that has not run yet; some need another text first."""
    if name in AFTER_OTHERS:
        outcome(runs["one by one"], model)
    return outcome(runs[name], model)


@torch.no_grad()
def looks(model: nn.Module, input_ids: Tensor, portions: Sequence[int]) -> list[Tensor]:
    """What each token of (1, T) looked at when fed in `portions`: its attention weights (K,).

    They are averaged over all heads and layers. The model must use `attention_weights` of
    `course_utils.attention`.
    """
    heard = []

    def listen(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = attention_weights(q, k, mask)
        heard.append(weights[0].mean(0))
        return weights

    rows, past_kv = [], None
    for portion in input_ids.split(list(portions), dim=1):
        heard.clear()
        with mock.patch("course_utils.attention.attention_weights", listen):
            _, past_kv = model(portion, past_kv=past_kv, use_cache=True)
        rows += torch.stack(heard).mean(0)
    return rows
