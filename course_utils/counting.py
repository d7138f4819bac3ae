"""What PyTorch is asked for: calls, operations and copied bytes (notebook 06)."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count


class Asked(TorchDispatchMode):
    """Keeps what PyTorch is asked for while this is active.

    `calls` holds each function and its arguments, `operations` counts multiplications and
    additions in matrix products, `copied` the bytes that `cat` and `copy_` write: what it costs
    to append to a cache.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict[str, Any]]] = []
        self.operations = self.copied = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.calls.append((func, args, kwargs))
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if "scaled_dot_product" in name:
            self.operations += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif func.overloadpacket in flop_registry:
            self.operations += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result)
        if name in ("cat", "copy_") and result.is_floating_point():
            self.copied += args[1].nbytes if name == "copy_" else result.nbytes
        return result

    def again(self) -> None:
        """Ask for the same once more, one call after the other."""
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)
