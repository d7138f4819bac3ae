"""What can be seen of a wrong cache: where it is wrong, and what it looks at (notebook 05)."""

from collections.abc import Sequence
from unittest import mock

import pandas as pd
import torch
from torch import Tensor, nn

from ..attention import attention_weights
from ..evaluation import max_seq_len
from ..transformer import DecoderOnlyTransformer
from .catalogue import CATALOGUE
from .probes import EXTRAS, outcomes, probes


def survey(reference: DecoderOnlyTransformer) -> dict[str, dict[str, bool]]:
    """For each entry of the catalogue: which probes, each on a model of its own, see that it is
    wrong."""
    return {
        name: {
            probe: outcome.problem is not None
            for probe, outcome in outcomes(bug.build(reference)).items()
        }
        for name, bug in CATALOGUE.items()
    }


def symptoms(model: nn.Module) -> pd.DataFrame:
    """How the model fares in each probe but the `EXTRAS`, and from where on it is wrong."""
    names = [name for name in probes(max_seq_len(model)) if name not in EXTRAS]
    found = {name: str(outcome) for name, outcome in outcomes(model, names).items()}
    return pd.DataFrame({"the logits": found})


@torch.no_grad()
def looks(model: nn.Module, input_ids: Tensor, chunks: Sequence[int]) -> list[Tensor]:
    """What each token of (1, T) looked at when fed in `chunks`: its attention weights (K,).

    They are averaged over all heads and layers. The model must use `attention_weights` of
    `course_utils.attention`.
    """
    heard = []

    def listen(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = attention_weights(q, k, mask)
        heard.append(weights[0].mean(0))
        return weights

    rows, past_kv = [], None
    for chunk in input_ids.split(list(chunks), dim=1):
        heard.clear()
        with mock.patch("course_utils.attention.attention_weights", listen):
            _, past_kv = model(chunk, past_kv=past_kv, use_cache=True)
        rows += torch.stack(heard).mean(0)
    return rows
