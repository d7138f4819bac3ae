"""Whether an answer works on another device than the one that makes tensors by default."""

import copy
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..evaluation.devices import ELSEWHERE, MIXED
from .common import own_line


class _There(nn.Module):
    """Uses a module while `functional_call` has put its parameters on another device."""

    def __init__(self, module: nn.Module, use: Callable[[nn.Module, torch.device], object]):
        super().__init__()
        self.module, self.use = module, use

    def forward(self, device: torch.device) -> object:
        return self.use(self.module, device)


@torch.no_grad()
def follows_its_device(
    use: Callable[[nn.Module, torch.device], object], what: str, module: nn.Module | None = None
) -> None:
    """Raise AssertionError if `use(module, device)` brings together tensors of two devices.

    The device is one of PyTorch's that every machine has; tensors on it know their shape and hold
    no numbers. An answer that has to look at numbers fails there for another reason, and passes.
    Where there is a GPU, it is used there too.
    """
    logging.getLogger(FakeTensorMode.__module__).setLevel(logging.CRITICAL)
    module = module or nn.Module()
    there = _There(module, use)
    with FakeTensorMode(allow_non_fake_inputs=True):
        own = [*there.named_parameters(), *there.named_buffers()]
        moved = {name: torch.empty(x.shape, dtype=x.dtype, device=ELSEWHERE) for name, x in own}
        device = torch.device(ELSEWHERE)
        _try(lambda: torch.func.functional_call(there, moved, (device,)), what, device)
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        _try(lambda: use(copy.deepcopy(module).to(device), device), what, device)


def beyond_the_card(
    use: Callable[[nn.Module, torch.device], object], what: str, module: nn.Module | None = None
) -> str:
    """The same where the card asks for no other device: what a verdict adds, if anything."""
    try:
        follows_its_device(use, what, module)
    except AssertionError as error:
        return f" Not asked for here, but on a GPU it counts: {error}"
    return ""


def _try(call: Callable[[], object], what: str, device: torch.device) -> None:
    try:
        found = call()
    except Exception as error:
        if MIXED.search(str(error)):
            line = own_line(error)
            raise AssertionError(
                f"{what} fails on another device{line and f', at `{line}`'}: a tensor "
                "was made on the CPU there. Pass `device=` to whatever makes a tensor, for example "
                "the device of a tensor that came in."
            ) from None
        return
    for part in found if isinstance(found, tuple) else (found,):
        if isinstance(part, Tensor) and part.device.type != device.type:
            raise AssertionError(
                f"{what}: what came in was on another device, or named one, but the result "
                f"is on {part.device}. Pass `device=` to whatever makes a tensor."
            )
