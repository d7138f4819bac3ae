"""What a model's attention layers are heard to do in one call: rows made, rows used, weights.

Shapes: B = 1 sequence, H heads, Q new positions, K rows that attention gets, d numbers per head,
D = H * d.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..counting import Asked

LOOKED_FOR = (
    "To watch a model, its attention layers must be in `model.layers[i].attention`, with `W_k` and "
    "`W_v`, and must call their own `attend(q, k, v)`, as those of notebook 04 do."
)


class CannotWatch(ValueError):
    """The model is of a form that cannot be listened to; the message says what was looked for."""


@dataclass
class Heard:
    """One layer in one call: what was made, (Q, D), what attention got, (K, D), for "K" and "V".

    `weights` (Q, K) are the attention weights, averaged over the heads.
    """

    made: dict[str, Tensor] = field(default_factory=dict)
    given: dict[str, Tensor] = field(default_factory=dict)
    weights: Tensor | None = None


class Listener:
    """Listens to a model from now on; `counter` counts the operations of the model alone.

    The weights are those that the layer's own `attend` uses, mask and all: with the identity for
    values, what it returns is its weights. Raises CannotWatch for a model of another form.
    """

    def __init__(self, model: nn.Module):
        self.model, self.counter = model, Asked()
        self.layers = [Heard() for _ in getattr(model, "layers", ())]
        for number, layer in enumerate(getattr(model, "layers", ())):
            block = getattr(layer, "attention", None)
            if not all(hasattr(block, name) for name in ("W_k", "W_v", "attend")):
                raise CannotWatch(LOOKED_FOR)
            block.W_k.register_forward_hook(self._made(number, "K"))
            block.W_v.register_forward_hook(self._made(number, "V"))
            block.attend = self._attend(number, block.attend)
        if not self.layers:
            raise CannotWatch(LOOKED_FOR)

    @torch.no_grad()
    def call(self, ids: Tensor, **cached: object) -> tuple[Tensor, object, list[Heard], int]:
        """Run the model on ids (1, Q): its logits (Q, V), its cache, the layers, the operations.

        Raises what the model raises, CannotWatch if its attention could not be heard.
        """
        self.layers = [Heard() for _ in self.model.layers]
        self.counter = Asked()
        with self.counter:
            logits, cache = self.model(ids, **cached)
        if any(heard.weights is None for heard in self.layers):
            raise CannotWatch(LOOKED_FOR)
        return logits[0], cache, self.layers, self.counter.operations

    def _made(self, number: int, kind: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], rows: Tensor) -> None:
            self.layers[number].made[kind] = rows[0].clone()

        return hook

    def _attend(self, number: int, attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def heard(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            layer, counted = self.layers[number], self.counter.operations
            layer.given = {"K": _side_by_side(k), "V": _side_by_side(v)}
            identity = torch.eye(k.size(2), dtype=v.dtype, device=v.device)
            layer.weights = attend(q, k, identity.expand(1, k.size(1), -1, -1))[0].mean(0)
            self.counter.operations = counted
            return attend(q, k, v)

        return heard


def _side_by_side(rows: Tensor) -> Tensor:
    """(1, H, K, d) -> (K, D), a copy."""
    return rows[0].transpose(0, 1).flatten(1).clone()
