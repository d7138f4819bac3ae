"""How answers are judged on drawn inputs: what is found, how small it gets, and what is said."""

import math

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from course_utils.checks.draws import unlikely
from course_utils.checks.elsewhere import beyond_the_card, follows_its_device
from course_utils.checks.inputs import Call, column_by_column, every_second_number, shown, tensors
from course_utils.checks.judged import calling, difference, gradients, judge
from course_utils.checks.modules import Use, learning, using

pytestmark = pytest.mark.authors

WHOLE = st.integers(0, 1000)
ROWS = st.builds(
    lambda x: Call("double", (x,)),
    st.integers(1, 4).flatmap(lambda n: tensors((2, n))),
)


def double(x):
    return 2 * x


def right(case):
    return 2 * case


def said(*given, **options):
    with pytest.raises(AssertionError) as caught:
        judge(*given, **options)
    return str(caught.value)


def test_the_smallest_case_is_shown():
    wrong = said(lambda case: 2 * case + (case > 200), right, WHOLE, number=100)
    assert wrong == "201 is 403, expected 402."


def test_first_cases_come_first():
    words = said(lambda case: 7, right, WHOLE, first=[5], advice="Double it.")
    assert words == "5 is 7, expected 10. Double it."


def test_what_is_right_passes_on_the_number_of_cases_that_was_asked_for():
    asked = []
    judge(lambda case: asked.append(case) or 2 * case, right, WHOLE, number=30)
    assert 25 <= len(asked) <= 31


def test_a_mistake_is_named_only_if_it_is_that_one():
    mistakes = [(lambda case: case, "It is not doubled."), (lambda case: 0, "It is nothing.")]
    assert said(lambda case: case, right, WHOLE, mistakes).endswith(" It is not doubled.")
    assert said(lambda case: 0, right, WHOLE, mistakes).endswith(" It is nothing.")
    # At 1, where it fails first, this is like the first mistake, and further on it is not.
    other = said(lambda case: 1 if case < 5 else 2 * case, right, WHOLE, mistakes, first=[1, 7])
    assert other == "1 is 1, expected 2."


def test_an_answer_that_only_raises_is_no_known_mistake():
    def raises(case):
        raise AssertionError("raised an error")

    assert said(raises, right, WHOLE, [(raises, "wrong name")]) == "0 raised an error."


def test_an_answer_that_differs_from_call_to_call_is_told():
    asked = []

    def first_wrong(case):
        asked.append(case)
        return 2 * case + (len(asked) == 1)

    assert "not the same twice" in said(first_wrong, right, WHOLE, first=[3])


def changes(x):
    return x.mul_(2)


def returns_nothing(x):
    2 * x


def in_float32(x):
    return (2 * x.float()).to(x.dtype)


def for_numbers_below_100(x):
    return 2 * x.where(x.abs() < 100, 0)


def by_view(x):
    return 2 * x.view(-1).view(x.shape)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (changes, "double\\(tensor\\(.*\\)\\) changes a tensor that came in; work on a new one\\."),
        (returns_nothing, "is None: the function returns nothing\\."),
        (lambda x: [2 * x], "is a list, expected a torch.Tensor"),
        (lambda x: 2 * x[0], "has shape \\(1,\\), expected \\(2, 1\\)"),
        (lambda x: 2 * x.float(), "has dtype torch.float32, expected torch.float64"),
        (in_float32, "torch.float64\\)\\) is \\[\\["),
        (for_numbers_below_100, "is \\[\\[0\\], \\[0\\]\\], expected|is .*, expected .*1e\\+0?3"),
        (lambda x: 2 * x / (x != 0), "holds NaN \\(not a number\\), expected \\[\\[0\\]"),
        (by_view, "not contiguous\\)\\) raised RuntimeError at `.*`reshape` copies them first"),
    ],
)
def test_what_is_wrong_with_a_function_is_told(answer, words):
    with pytest.raises(AssertionError, match=words):
        judge(calling(answer), calling(double), ROWS, number=200)


@pytest.mark.parametrize("give", [lambda x: x, lambda x: {"it": (x, x)}])
def test_a_result_that_a_later_call_changes_is_told(give):
    memory = torch.zeros(8)

    def written_over(case):
        return give(memory[:case].fill_(case))

    def right(case):
        return give(torch.full((case,), float(case)))

    words = said(written_over, right, st.integers(1, 8))
    assert "gives a result that a later call changes" in words


def test_lists_and_dicts_that_came_in_are_looked_at():
    def called(function, *args):
        return calling(function)(Call("f", args))

    assert called(sum, [1, 2]) == 3
    with pytest.raises(AssertionError, match="changes a list that came in"):
        called(lambda many: many.pop(), [1, 2])
    with pytest.raises(AssertionError, match="changes a list that came in"):
        called(lambda many: many[0].add_(1), [torch.zeros(2)])
    with pytest.raises(AssertionError, match="changes a dict that came in"):
        called(lambda named: named.pop("a"), {"a": 1})


def test_a_right_function_passes_and_is_given_every_kind_of_tensor():
    given = []
    judge(calling(lambda x: given.append(x) or x + x), calling(double), ROWS, number=150)
    assert {x.dtype for x in given} == {torch.float32, torch.float64}
    assert {x.is_contiguous() for x in given} == {True, False}
    largest = [x.abs().max().item() for x in given]
    assert min(largest) == 0 and max(largest) > 999


def test_rounding_is_allowed_as_far_as_the_right_one_rounds():
    x = torch.tensor([1000.0, 1000.01])
    exact = (x.double() - 1000).mean()
    loses = (x - 1000).mean()
    assert difference(exact.float(), loses, exact) == ""
    assert difference(loses + 1e-3, loses, exact)
    half = torch.tensor([1.0, 1e-3], dtype=torch.bfloat16)
    assert difference(half, half, half) == ""
    assert difference(half * torch.tensor([1, 1.02], dtype=torch.bfloat16), half, half)


@pytest.mark.parametrize(
    ("found", "expected", "how"),
    [
        (0.3, 0.1 + 0.2, ""),
        (1, 1.0, ""),
        (0.31, 0.3, "is 0.31, expected 0.3"),
        ("1", 1.0, "is '1', expected 1.0"),
        ((1, 2), (1, 2), ""),
        ((1, 3), (1, 2), "is 3, expected 2 (result 2)"),
        ([1, 2], (1, 2), "gives a list, expected 2 things"),
        ({"a": 1}, {"a": 2}, "is 1, expected 2 (a)"),
        ({"b": 1}, {"a": 1}, "is {'b': 1}, expected {'a': 1}"),
        (torch.tensor([1]), torch.tensor([2]), "is [1], expected [2]"),
        (torch.tensor([-math.inf]), torch.tensor([-math.inf]), ""),
        (torch.tensor([-1e30]), torch.tensor([-math.inf]), "is [-1e+30], expected [-inf]"),
        (torch.arange(20) * 2, torch.arange(20), "is 38 at [19], expected 19"),
        (torch.zeros(0), torch.zeros(0), ""),
    ],
)
def test_differences(found, expected, how):
    assert difference(found, expected, expected) == how


def test_of_many_numbers_one_that_is_wrong_is_shown_and_no_infinity_that_is_right():
    expected = torch.arange(40.0).masked_fill(torch.arange(40) < 30, -math.inf)
    found = expected.clone()
    found[35] = 7
    assert difference(found, expected, expected) == "is 7 at [35], expected 35"


def test_gradients_are_compared_and_a_missing_one_is_told():
    call = Call("double", (torch.ones(3, dtype=torch.float64),))
    judge(gradients(double), gradients(lambda x: x + x), st.just(call))
    for answer in (lambda x: 2 * x.detach(), lambda x: torch.tensor((2 * x).tolist())):
        assert "has no gradient" in said(gradients(answer), gradients(double), st.just(call))
    half = said(gradients(lambda x: x + x.detach()), gradients(double), st.just(call))
    assert half.endswith("(the gradient of argument 1).")
    assert not call.args[0].requires_grad


def test_how_a_call_is_written():
    x = torch.tensor([[1.0, 0.5]])
    assert str(Call("f", (x, 3), {"mask": None})) == "f(tensor([[1, 0.5]]), 3, mask=None)"
    assert shown(x.double().T) == "tensor([[1], [0.5]], torch.float64)"
    assert shown(every_second_number(x)) == "tensor([[1, 0.5]], not contiguous)"
    assert shown(torch.zeros(4, 5)) == "<tensor (4, 5)>"
    assert shown(torch.tensor([True])) == "tensor([True])"
    for layout in (column_by_column, every_second_number):
        assert torch.equal(layout(x), x)


@pytest.mark.parametrize("shares", [[0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.49, 0.01]])
def test_ten_thousand_right_draws_are_never_unlikely_and_wrong_ones_are(shares):
    shares = torch.tensor(shares, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(shares, 10_000 * 500, replacement=True, generator=generator)
    counts = torch.nn.functional.one_hot(drawn.view(10_000, 500), 4).sum(1)
    assert not any(unlikely(row, shares) for row in counts)
    assert unlikely(counts[0].flip(0), shares)
    assert unlikely(torch.bincount(drawn, minlength=4), (shares + 0.01) / 1.04)


def test_what_cannot_be_drawn_is_unlikely_once():
    assert unlikely(torch.tensor([1, 999]), torch.tensor([0.0, 1.0]))
    assert not unlikely(torch.tensor([0, 1000]), torch.tensor([0.0, 1.0]))


def on_the_cpu(x):
    return x + torch.arange(x.size(-1))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (on_the_cpu, "f fails on another device, at `return x \\+ torch.arange"),
        (lambda x: torch.zeros(3), "another device, or named one, but the result is on"),
        (lambda x: x + torch.arange(x.size(-1), device=x.device), None),
        (lambda x: torch.where(x > 0, x, torch.tensor(-math.inf)), None),
        (lambda x: x * x.sum().item(), None),
    ],
)
def test_an_answer_is_tried_on_another_device(answer, words):
    def use(_, device):
        return answer(torch.zeros(2, 3, device=device))

    if words is None:
        assert beyond_the_card(use, "f") == ""
        return follows_its_device(use, "f")
    with pytest.raises(AssertionError, match=words) as caught:
        follows_its_device(use, "f")
    more = beyond_the_card(use, "f")
    assert more == f" Not asked for here, but on a GPU it counts: {caught.value}"


class Table(nn.Module):
    """Adds a learned row."""

    def __init__(self, width):
        super().__init__()
        self.row = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return x + self.row


class OnTheCPU(Table):
    def forward(self, x):
        return x + self.row + torch.zeros(x.size(-1))


class ChangesItself(Table):
    @torch.no_grad()
    def forward(self, x):
        return x + self.row.add_(1)


class Detached(Table):
    def forward(self, x):
        return x + self.row.detach()


USES = st.builds(
    lambda width, seed: Use("Table", {"width": width}, (torch.ones(2, width).double(),), seed),
    st.integers(1, 4),
    st.integers(0, 3),
)


def test_a_class_is_judged_with_its_weights():
    judge(using(Table, Table), using(Table, Table), USES)
    words = said(using(ChangesItself, Table), using(Table, Table), USES)
    assert words == (
        "Table(width=1)(tensor([[1], [1]], torch.float64)) changes its parameter row when it is "
        "called."
    )
    other = type("Other", (Table,), {"forward": lambda self, x: x - self.row})
    named = said(using(other, Table), using(Table, Table), USES, [(using(other, Table), "Add it.")])
    assert named.endswith(" Add it.")
    judge(learning(Table, Table), learning(Table, Table), USES)
    assert "(the gradient of row)" in said(learning(Detached, Table), learning(Table, Table), USES)


def test_a_module_is_tried_on_another_device():
    for module_class, wrong in ((Table, False), (OnTheCPU, True)):
        module = module_class(3)

        def use(there, device):
            return there(torch.zeros(2, 3, device=device))

        if wrong:
            with pytest.raises(AssertionError, match="at `return x \\+ self.row \\+ torch.zeros"):
                follows_its_device(use, "Table", module)
        else:
            follows_its_device(use, "Table", module)
        assert module.row.device.type == "cpu"


def test_where_there_is_a_gpu_it_is_used(monkeypatch):
    """The other device of this test is one that every machine has."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    asked = []

    def use(there, device):
        asked.append(device.type)
        return torch.zeros(3) if len(asked) == 4 else there(torch.zeros(3, device=device))

    for count in (2, 4):
        module = Table(3)
        if count == 2:
            follows_its_device(use, "Table", module)
        else:
            with pytest.raises(AssertionError, match="the result is on cpu"):
                follows_its_device(use, "Table", module)
        assert len(asked) == count and module.row.device.type == "cpu"
    assert asked[1] == "meta"


def test_what_fails_is_told_though_getting_it_smaller_is_cut_off():
    long = st.lists(st.integers(0, 10**9), min_size=60, max_size=60)
    said(lambda case: sum(case) + (len(set(case)) > 30), sum, long, number=20)
