"""What the check cell of packed bytes calls (chapter 09)."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ....checks.common import verdict
from ....checks.elsewhere import follows_its_device
from ....checks.inputs import LAYOUTS, Call
from ....checks.judged import Answer, calling, judge
from .. import packed_numbers as right


@st.composite
def _codes(draw: st.DrawFn) -> Call:
    """Codes of random size, all 0, or all as large as can be; for 1 to 4 bytes in a row."""
    bits = draw(st.sampled_from((8, 4, 2)))
    shape = [*draw(st.lists(st.integers(1, 3), max_size=3)), draw(st.integers(1, 4)) * 8 // bits]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    least, most = draw(st.sampled_from([(0, 2**bits), (0, 1), (2**bits - 1, 2**bits)]))
    codes = torch.randint(least, most, shape, generator=generator).to(torch.uint8)
    return Call("pack", (draw(st.sampled_from(LAYOUTS))(codes), bits))


@st.composite
def _bytes(draw: st.DrawFn) -> Call:
    codes, bits = draw(_codes()).args
    packed = draw(st.sampled_from(LAYOUTS))(right.pack(codes, bits))
    return Call("unpack", (packed, bits))


def _packing(pack: Callable) -> Answer:
    def answer(call: Call) -> object:
        found = calling(pack)(call)
        if isinstance(found, Tensor) and found.dtype != torch.uint8:
            raise AssertionError(
                f"has dtype {found.dtype}, whose numbers take {found.element_size()} bytes each, "
                "expected torch.uint8, which takes one"
            )
        return found

    return answer


def _unpacking(unpack: Callable) -> Answer:
    def answer(call: Call) -> object:
        found = calling(unpack)(call)
        if not isinstance(found, Tensor):
            return found
        if found.is_floating_point() or found.dtype == torch.bool:
            raise AssertionError(f"has dtype {found.dtype}, expected whole numbers, torch.uint8")
        return found.long()

    return answer


def _side_by_side(codes: Tensor, bits: int) -> Tensor:
    return codes.unflatten(-1, (-1, 8 // bits))


def _shifts(bits: int) -> Tensor:
    return torch.arange(0, 8, bits)


def _highest_first(codes: Tensor, bits: int) -> Tensor:
    return right.pack(_side_by_side(codes, bits).flip(-1).flatten(-2), bits)


def _far_apart(codes: Tensor, bits: int) -> Tensor:
    return right.pack(codes.unflatten(-1, (8 // bits, -1)).transpose(-2, -1).flatten(-2), bits)


def _shifted(shifts: Callable[[int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    return lambda codes, bits: (_side_by_side(codes, bits) << shifts(bits)).sum(-1).byte()


LOWEST = "In each byte the first code is in the lowest bits, not in the highest."
NEIGHBOURS = "Codes that are neighbours share a byte. Here they are far apart."
WRONG_PACKS = [
    (lambda codes, bits: codes, "Nothing is packed: 8 / bits codes go into each byte."),
    (_highest_first, LOWEST),
    (_far_apart, NEIGHBOURS),
    (
        lambda codes, bits: _side_by_side(codes, bits).sum(-1).byte(),
        "The codes of a byte are added, but not shifted first: by 0, bits, 2 * bits, ...",
    ),
    (
        lambda codes, bits: (_side_by_side(codes, bits) >> _shifts(bits)).sum(-1).byte(),
        "The codes are shifted down. `<<` shifts up.",
    ),
]
WRONG_UNPACKS = [
    (
        lambda packed, bits: (packed[..., None] >> _shifts(bits)).flatten(-2),
        "What is above a code in its byte is still there: keep only the lowest bits, by "
        "`& (2**bits - 1)`.",
    ),
    (
        lambda packed, bits: (packed[..., None] >> _shifts(bits) & 15).flatten(-2),
        "The lowest 4 bits are kept, whatever `bits` is: the mask is 2**bits - 1.",
    ),
    (
        lambda packed, bits: (packed[..., None] >> _shifts(bits) & bits).flatten(-2),
        "The mask is bits. A mask that keeps the lowest bits is 2**bits - 1.",
    ),
    (
        lambda packed, bits: _side_by_side(right.unpack(packed, bits), bits).flip(-1).flatten(-2),
        "The codes of a byte come back with those of the highest bits first.",
    ),
    (
        lambda packed, bits: right.unpack(packed, bits).flip(-1),
        "All codes of a row come back in reverse order.",
    ),
    (
        lambda packed, bits: (
            _side_by_side(right.unpack(packed, bits), bits).transpose(-2, -1).flatten(-2)
        ),
        "First come the first codes of all bytes. Codes that are neighbours share a byte.",
    ),
]


@verdict
def check_pack(
    pack: Callable[[Tensor, int], Tensor], unpack: Callable[[Tensor, int], Tensor]
) -> str:
    """Chapter 09, exercise 4. Returns a verdict; raises AssertionError on wrong bytes."""
    examples = (([1, 2, 15, 0], 4), ([3, 0, 1, 2], 2), ([200, 7], 8))
    first = [Call("pack", (torch.tensor(codes).byte(), bits)) for codes, bits in examples]
    judge(
        _packing(pack),
        _packing(right.pack),
        _codes(),
        [(_packing(wrong), advice) for wrong, advice in WRONG_PACKS],
        first=first,
        number=80,
        advice="Codes that are neighbours share a byte, the first in the lowest bits: [1, 2] in 4 "
        "bits each is the byte 0010 0001, which is 33.",
    )
    judge(
        _unpacking(unpack),
        _unpacking(right.unpack),
        _bytes(),
        [(_unpacking(wrong), advice) for wrong, advice in WRONG_UNPACKS],
        first=[Call("unpack", (right.pack(*call.args), call.args[1])) for call in first],
        number=80,
        advice="Shift each byte to the right by 0, bits, 2 * bits, ... and keep the lowest bits.",
    )

    def use(_: nn.Module, device: torch.device) -> tuple[Tensor, Tensor]:
        empty = torch.empty(2, 8, dtype=torch.uint8, device=device)
        return pack(empty, 4), unpack(empty, 4)

    follows_its_device(use, "pack or unpack")
    return (
        "pack and unpack are right for 8, 4 and 2 bits: any shape and layout, and every code comes "
        "back."
    )
