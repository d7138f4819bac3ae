"""What a ring of slots gives, beside all that went into it (chapter 09)."""

import torch
from torch import Tensor

RING = (
    "A sink's slot is its position. Behind the sinks, position p is number p - sinks of the ring, "
    "and the ring begins at slot `sinks`"
)


def appended(own: object, given: Tensor, kept: list[int], layer: int, where: str) -> None:
    """Raise AssertionError unless a cache takes the last of `given`, and returns what is kept.

    `given` (T, 2, B, H, 1, d) is all that goes into this layer, keys and values. The order of what
    comes back is free.
    """
    k, v = given[-1].clone()
    found = own.append(layer, k, v)
    if not torch.equal(torch.stack((k, v)), given[-1]):
        raise AssertionError(f"{where} the keys or values that came in were changed")
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise AssertionError(f"append returns {type(found).__name__}, expected keys, values")
    for name, tensor in zip(("keys", "values"), found, strict=True):
        _shaped(tensor, name, given, len(kept), where)
    _judge_slots(*found, given, kept, where)


def _shaped(found: object, name: str, given: Tensor, expected: int, where: str) -> None:
    """Raise AssertionError unless it is a tensor (B, H, expected, d) of the right dtype."""
    what = f"{where} append returns {name}"
    batch, heads, _, d_head = given.shape[2:]
    if not isinstance(found, Tensor):
        raise AssertionError(f"{what} that are {type(found).__name__}, expected a torch.Tensor")
    count = found.size(2) if found.dim() == 4 else None
    if found.shape != (batch, heads, count, d_head):
        shape = (batch, heads, expected, d_head)
        raise AssertionError(f"{what} of shape {tuple(found.shape)}, expected {shape}")
    if found.dtype != given.dtype:
        raise AssertionError(f"{what} of dtype {found.dtype}, expected {given.dtype}")
    if count != expected:
        advice = ""
        if torch.equal(found, given[-1, ("keys", "values").index(name)]):
            advice = ". It is only the new one, and it looks at others, too"
        elif len(given) < count:
            advice = f". Only {len(given)} went in: empty slots are not returned"
        elif count == len(given):
            advice = ". These are all that went in: what is older than the window has to go"
        raise AssertionError(f"{what} of {count} positions, expected {expected}{advice}")


def _judge_slots(keys: Tensor, values: Tensor, given: Tensor, kept: list[int], where: str) -> None:
    """Raise AssertionError unless the slots hold the kept positions, each with its value."""
    held = _held(keys, given[:, 0])  # (T, B, H, K)
    names = []
    for slot in range(len(kept)):
        what = f"{where} slot {slot}"
        matches = held[..., slot].flatten(1)
        whole = matches.all(1).nonzero().flatten().tolist()
        if not whole:
            raise AssertionError(_not_a_key(keys[:, :, slot], matches, given, what))
        position = whole[-1]
        if not torch.equal(values[:, :, slot], given[position, 1][:, :, 0]):
            raise AssertionError(f"{what} has the key of position {position}, and not its value")
        names.append(position)
    if sorted(names) != kept:
        raise AssertionError(f"{where} it holds positions {sorted(names)}, expected {kept}. {RING}")


def _held(found: Tensor, given: Tensor) -> Tensor:
    """Which positions of `given` (T, B, H, 1, d) are in which slots of `found`: (T, B, H, K)."""
    return (found[None] == given).all(-1)


def _not_a_key(found: Tensor, matches: Tensor, given: Tensor, what: str) -> str:
    """What a slot (B, H, d) holds that is no position's key."""
    if found.isnan().all():
        return f"{what} came back, and nothing was stored in it. {RING}"
    if found.isnan().any() or matches.any(0).all():
        return f"{what} does not hold the same position in all rows and heads"
    if _held(found[:, :, None], given[:, 1]).flatten(1).all(1).any():
        return f"{what} holds values where keys belong"
    if torch.isclose(found, given[:, 0, :, :, 0], rtol=1e-3).flatten(1).all(1).any():
        return f"{what} holds a key that was rounded"
    return f"{what} holds no key that went in. {RING}"


def counted(own: object, last: int, layer: int, where: str) -> None:
    """Raise AssertionError unless each layer has counted what went into it."""
    expected = [last + 1 if other <= layer else last for other in range(len(own.lengths))]
    if list(own.lengths) != expected:
        raise AssertionError(
            f"{where} lengths is {own.lengths}, expected {expected}. Each layer counts all "
            "positions that went into it, kept or not"
        )
    if own.length != last + 1:
        raise AssertionError(
            f"{where} length is {own.length}, expected {last + 1}. It counts all that went in: the "
            "model takes the place of the next token from it"
        )
