"""What the check cells of "Smaller caches" call (chapter 09)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ... import checks
from ...checks.common import ask, pair, refuse_known, tensor, unchanged, verdict
from ...transformer import DecoderOnlyTransformer


@verdict
def check_pool_heads(pool_heads: Callable[[Tensor, int, int], Tensor]) -> str:
    """Chapter 09, exercise 1. Returns a verdict; raises AssertionError on wrong weights."""
    for num_heads, num_kv_heads, d_head, d_model in ((4, 2, 3, 12), (6, 2, 2, 12), (4, 1, 2, 8)):
        torch.manual_seed(0)
        weight = torch.randn(num_heads * d_head, d_model)
        before = weight.clone()
        found = pool_heads(weight, num_heads, num_kv_heads)
        what = f"For {num_heads} heads pooled to {num_kv_heads}, the result"
        found = tensor(found, what, (num_kv_heads * d_head, d_model))
        unchanged([before], [weight], "The weight that came in was changed: leave it as it is.")
        size = num_heads // num_kv_heads
        heads = weight.view(num_heads, d_head, d_model)
        groups = [range(g * size, (g + 1) * size) for g in range(num_kv_heads)]
        expected = torch.cat([sum(heads[h] for h in group) / size for group in groups])
        if torch.allclose(found, expected, atol=1e-6):
            continue
        far_apart = heads.view(size, num_kv_heads, d_head, d_model).mean(0).flatten(0, 1)
        mistakes = [
            (
                size * expected,
                "These are sums. The queries expect keys of the old size: take the mean.",
            ),
            (
                far_apart,
                "Each group must hold heads that follow one another (0 and 1, 2 and 3), because "
                "query head h asks key head h // group size. Here heads far apart were pooled.",
            ),
            (
                torch.cat([heads[group[0]] for group in groups]),
                "This is the first head of each group, not the mean of the group.",
            ),
            (
                weight.view(num_kv_heads * d_head, size, d_model).mean(1),
                "Rows that follow one another were averaged: they belong to one head. A head is "
                "d_head rows, and the first rows of two heads belong together.",
            ),
        ]
        refuse_known(found, mistakes, atol=1e-6)
        raise AssertionError(
            f"{what} is not the mean of each group of {size} heads; it is wrong by up to "
            f"{(found - expected).abs().max():.2g}. Head h is the rows h * d_head to "
            "(h + 1) * d_head of the weight."
        )
    return "pool_heads is right: 4 heads to 2, 6 to 2 and 4 to 1."


@verdict
def check_band_mask(band_mask: Callable[..., Tensor]) -> str:
    """Chapter 09, exercise 2. Returns a verdict; raises AssertionError on a wrong mask."""
    cases = (
        (6, 6, 3, 0),
        (6, 6, 2, 1),
        (6, 6, 2, 3),
        (2, 7, 3, 2),
        (1, 9, 4, 1),
        (5, 5, 9, 0),
        (4, 6, 1, 3),
    )
    for num_queries, num_keys, window, sinks in cases:
        call = f"band_mask({num_queries}, {num_keys}, window={window}, sinks={sinks})"
        found = band_mask(num_queries, num_keys, window, sinks)
        found = tensor(found, call, (num_queries, num_keys))
        if found.dtype != torch.bool:
            raise AssertionError(f"{call} is of {found.dtype}, expected torch.bool.")
        for row in range(num_queries):
            query = num_keys - num_queries + row
            for key in range(num_keys):
                sees = key <= query and (query - key < window or key < sinks)
                if bool(found[row, key]) != sees:
                    last = " Are the queries the last positions?" * (num_queries < num_keys)
                    raise AssertionError(_why_not(call, query, key, sees, window, sinks) + last)
    return "band_mask is right: with and without sinks, for a square and for the last queries."


def _why_not(call: str, query: int, key: int, sees: bool, window: int, sinks: int) -> str:
    does, should = ("does not see", "must") if sees else ("sees", "must not")
    if key > query:
        reason = "nobody sees what comes later, a sink no more than another position"
    elif key < sinks:
        reason = f"positions below {sinks} are sinks, which every later position sees"
    elif sees:
        reason = f"the last {window}, its own among them, are those from {query - window + 1} on"
    else:
        reason = f"it is {query - key} back, and the window of {window} counts its own position"
    return f"In {call} position {query} {does} position {key}, and {should}: {reason}."


@verdict
def check_window_cache(window_cache: type) -> str:
    """Chapter 09, exercise 3. Returns a verdict; raises AssertionError on a wrong cache."""
    model = DecoderOnlyTransformer(11, 8, 16, 2, 32, num_heads=2, dropout=0.0)
    for window, sinks, batch in ((3, 0, 1), (3, 2, 2), (1, 1, 1), (20, 4, 1)):
        torch.manual_seed(0)
        cache = window_cache(model, batch, window, sinks)
        pairs = torch.randn(14, model.num_layers, 2, batch, 2, 1, 4)
        for t, layers in enumerate(pairs):
            for layer, (k, v) in enumerate(layers):
                given = k.clone(), v.clone()
                found = ask(cache.append, layer, k, v)
                _judge_window(found, pairs[: t + 1, layer], window, sinks, layer)
                unchanged(given, (k, v), "The keys and values that came in were changed.")
            if cache.length != t + 1:
                raise AssertionError(
                    f"After position {t} length is {cache.length}, expected {t + 1}. It counts all "
                    "that went in: the model takes the place of the next token from it."
                )
        held = 2 * model.num_layers * batch * 2 * (window + sinks) * 4 * 4
        if cache.nbytes != held:
            raise AssertionError(
                f"The cache holds {cache.nbytes} bytes after 14 positions, expected {held}: "
                f"{sinks} + {window} slots, however long the text is."
            )
    return "WindowCache is right: four windows, two layers, one row and two, 14 positions each."


def _judge_window(found: object, given: Tensor, window: int, sinks: int, layer: int) -> None:
    """Raise AssertionError unless `found` is the keys and values of the right positions.

    `given` (T, 2, B, H, 1, d) is all that went into this layer. The order does not matter.
    """
    keys, values = pair(found, f"append returns {type(found).__name__}; expected keys, values.")
    last = len(given) - 1
    kept = [p for p in range(last + 1) if p > last - window or p < sinks]
    where = f"With window={window}, sinks={sinks}, after position {last} in layer {layer}"
    if layer and isinstance(keys, Tensor) and keys.dim() == 4 and keys.size(2) != len(kept):
        raise AssertionError(
            f"{where}: keys of {keys.size(2)} positions came back, expected {len(kept)}. Layer 0 "
            "was right: each layer needs a count of its own (lengths[layer])."
        )
    tensor(keys, f"{where}: keys", (*given.shape[2:4], len(kept), given.shape[-1]))
    tensor(values, f"{where}: values", keys.shape)
    names = []
    for slot in range(len(kept)):
        match = (given[:, 0] == keys[:, :, slot : slot + 1]).flatten(1).all(1).nonzero()
        if not len(match):
            raise AssertionError(
                f"{where}: slot {slot} holds no key that went in. Behind the sinks, position p is "
                "number p - sinks of the ring, and the ring begins at slot `sinks`."
            )
        position = int(match[-1])
        if not torch.equal(values[:, :, slot], given[position, 1][:, :, 0]):
            raise AssertionError(
                f"{where}: slot {slot} has the key of position {position}, and not its value."
            )
        names.append(position)
    if sorted(names) != kept:
        raise AssertionError(
            f"{where}, the cache holds positions {sorted(names)}, expected {kept}: the first "
            f"{sinks} and the last {window}."
        )


@verdict
def check_pack(
    pack: Callable[[Tensor, int], Tensor], unpack: Callable[[Tensor, int], Tensor]
) -> str:
    """Chapter 09, exercise 4. Returns a verdict; raises AssertionError on wrong bytes."""
    example = torch.tensor([1, 2, 15, 0], dtype=torch.uint8)
    _judge_pack(pack, example, 4, [1 + 16 * 2, 15])
    _judge_pack(pack, torch.tensor([3, 0, 1, 2], dtype=torch.uint8), 2, [3 + 16 * 1 + 64 * 2])
    _judge_pack(pack, torch.tensor([200, 7], dtype=torch.uint8), 8, [200, 7])
    for bits in (8, 4, 2):
        codes = torch.randint(2**bits, (2, 3, 32), generator=torch.Generator().manual_seed(bits))
        codes = codes.to(torch.uint8)
        packed = pack(codes.clone(), bits)
        tensor(packed, f"{bits} bits: packed, 32 codes", (2, 3, 4 * bits))
        found = tensor(unpack(packed.clone(), bits), f"{bits} bits: unpacked", (2, 3, 32))
        if not torch.equal(found.long(), codes.long()):
            wrong = (found.long() != codes.long()).nonzero()[0].tolist()
            raise AssertionError(
                f"{bits} bits: the code at {wrong} was {codes[tuple(wrong)]} and comes back as "
                f"{found[tuple(wrong)]}. Shift each to the right and keep its lowest {bits} bits."
            )
    return "pack and unpack are right for 8, 4 and 2 bits: every code comes back."


def _judge_pack(
    pack: Callable[[Tensor, int], Tensor], codes: Tensor, bits: int, expected: list[int]
) -> None:
    what = f"pack({codes.tolist()}, {bits})"
    found = tensor(pack(codes.clone(), bits), what, (len(expected),))
    if found.dtype != torch.uint8:
        raise AssertionError(
            f"{what} is of {found.dtype}, whose numbers take {found.element_size()} bytes each; "
            "expected torch.uint8, or nothing is saved."
        )
    if found.tolist() != expected:
        per_byte = 8 // bits
        first = [format(int(code), f"0{bits}b") for code in codes[:per_byte]]
        raise AssertionError(
            f"{what} is {found.tolist()}, expected {expected}. The first byte holds the first "
            f"{per_byte} codes, the first of them in the lowest bits: {' '.join(reversed(first))}."
        )


@verdict
def check_victim(victim: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Chapter 09, exercise 5. Returns a verdict; raises AssertionError on a wrong choice."""
    mass = torch.tensor([[0.5, 0.1, 3.0, 0.2, 0.05], [2.0, 0.9, 0.3, 0.1, 0.2]])
    protected = torch.tensor([[False, False, False, True, True]] * 2)
    before, shield = mass.clone(), protected.clone()
    for shape in ((2,), (1, 2), (2, 1)):
        found = victim(mass.view(*shape, 5), protected.view(*shape, 5))
        found = tensor(found, f"For mass {(*shape, 5)}, the index", (*shape, 1))
        if found.dtype != torch.long:
            raise AssertionError(f"The index is of {found.dtype}, expected torch.int64.")
        chosen = found.flatten().tolist()
        mistakes = [
            ([4, 3], "These have received least of all, but they are protected: they came last."),
            ([2, 0], "These have received most attention. The one with least has to go."),
        ]
        refuse_known(chosen, mistakes)
        if chosen != [1, 2]:
            rows = [[round(number, 2) for number in row] for row in mass.tolist()]
            raise AssertionError(
                f"For mass {rows}, the last two of each row protected: found {chosen}, expected "
                "[1, 2]."
            )
    unchanged(
        (before, shield),
        (mass, protected),
        "mass or protected was changed: the cache goes on counting with them.",
    )
    return "victim is right: the least of those that may go, in every head by itself."


EXERCISES = {
    "09": {
        "1: fewer heads": (check_pool_heads, ("pool_heads",)),
        "2: a band": (check_band_mask, ("band_mask",)),
        "3: a ring of slots": (check_window_cache, ("WindowCache",)),
        "4: two to a byte": (check_pack, ("pack", "unpack")),
        "5: who has to go": (check_victim, ("victim",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
