"""Does a cache follow its model to another device? (notebook 05)"""

import itertools
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode

PORTIONS = (3, 1, 2, 1)
ELSEWHERE = "lazy:0"


class NotJudged(Exception):
    """Something that cannot be tried on this model, and why."""


@torch.no_grad()
def follows_its_device(model: nn.Module) -> None:
    """Raise RuntimeError if a cached call brings together tensors of two devices.

    The other device is one of PyTorch's that every machine has; the tensors on it are
    `FakeTensor`s, which know their shape and device and hold no numbers. Raises NotJudged for a
    model that looks at numbers, or that fails there for any other reason.
    """
    logging.getLogger(FakeTensorMode.__module__).setLevel(logging.CRITICAL)
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved = {name: torch.empty(t.shape, dtype=t.dtype, device=ELSEWHERE) for name, t in tensors}

        def run(ids: Tensor, **cached: Any) -> tuple[Tensor, Any]:
            return torch.func.functional_call(model, moved, (ids,), cached)

        room = model.pos_embedding.weight.size(0)
        portions = PORTIONS if room >= sum(PORTIONS) else (1,) * room
        ids = torch.empty(1, sum(portions), dtype=torch.long, device=ELSEWHERE)
        try:
            run(ids)
        except Exception as error:
            raise NotJudged(f"without a cache it fails there too ({_name(error)})") from None
        past_kv = None
        try:
            for part in ids.split(portions, dim=1):
                _, past_kv = run(part, past_kv=past_kv, use_cache=True)
        except Exception as error:
            if isinstance(error, FakeTensorDeviceMismatchError) or "same device" in str(error):
                raise RuntimeError(f"a cached call mixes devices: {error}") from None
            raise NotJudged(f"it cannot run where there are no numbers ({_name(error)})") from None


def _name(error: Exception) -> str:
    return type(error).__name__
