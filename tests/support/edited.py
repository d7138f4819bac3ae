"""The worked answer with a few words of it changed: what a student might have written instead."""

import inspect
from collections.abc import Callable
from types import ModuleType


def edited(room: ModuleType, name: str, *changes: tuple[str, str]) -> Callable:
    """`room.name` with each `old` in its source replaced by `new`; each must be there."""
    source = inspect.getsource(getattr(room, name))
    for old, new in changes:
        if old not in source:
            raise ValueError(f"{name} does not hold {old!r}")
        source = source.replace(old, new)
    namespace = dict(vars(room))
    exec(compile(source, f"{name}, edited", "exec"), namespace)
    return namespace[name]
