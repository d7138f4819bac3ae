"""The small mistakes of `tests/support/mutants.py`: every kind is made, and nothing else."""

import ast

import pytest
from mutants import mutants, sample

from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

CACHES = ROOT / "course_utils" / "kv_cache.py"
SOURCE = '''
class Store(Base):
    """A docstring with 1 and True."""

    @made(1)
    def put(self, k: Tuple[1, 2], v, start=0, end=None):
        """Another."""
        super().put(k, v)
        self.keys[start:end] = k.add(v, alpha=0.5)
        self.values[:, start] += -1 + v.clone()
        self.check(end, len(k))
        return torch.cat([k, v], dim=-1)

    def fill(self, xs, masked: bool = True):
        for x in xs:
            if x < 3 and not masked:
                total: int = 2 * x
        return [self.values if masked else y for y in xs if y == f"{x + 1}"]

    def only(self):
        return None
'''


@pytest.fixture(scope="module")
def found():
    return list(mutants(SOURCE))


EXPECTED = {
    "statement": [
        "dropped: super().put(k, v)",
        "dropped: self.keys[start:end] = k.add(v, alpha=0.5)",
        "dropped: self.values[:, start] += -1 + v.clone()",
        "dropped: return torch.cat([k, v], dim=-1)",
        "total: int = 2 * x -> total: int",
    ],
    "branch": [
        "if x < 3 and (not masked): -> if True:",
        "if x < 3 and (not masked): -> if False:",
        "self.values if masked else y -> self.values",
        "self.values if masked else y -> y",
    ],
    "loop": ["for x in xs: -> for x in list(xs)[:-1]:", "for x in xs: -> for x in list(xs)[1:]:"],
    "plain assignment": [
        "self.values[:, start] += -1 + v.clone() -> self.values[:, start] = -1 + v.clone()"
    ],
    "operator": [
        *(f"2 * x -> 2 {op} x" for op in ("+", "-", "//")),
        *(f"x < 3 -> x {op} 3" for op in ("<=", ">", ">=", "==", "!=")),
        "x < 3 and (not masked) -> x < 3 or not masked",
        "self.values[:, start] += -1 + v.clone() -> self.values[:, start] -= -1 + v.clone()",
    ],
    "negation": [
        "x < 3 and (not masked) -> not (x < 3 and (not masked))",
        "x < 3 and (not masked) -> x < 3 and masked",
        "-1 + v.clone() -> 1 + v.clone()",
    ],
    "constant": [
        "x < 3 -> x < 4",
        "x < 3 -> x < 2",
        "self, k: Tuple[1, 2], v, start=0, end=None -> self, k: Tuple[1, 2], v, start=1, end=None",
        "torch.cat([k, v], dim=-1) -> torch.cat([k, v], dim=-2)",
        *(f"k.add(v, alpha=0.5) -> k.add(v, alpha={alpha})" for alpha in (1.0, 0.25, -0.5)),
        "self, xs, masked: bool=True -> self, xs, masked: bool=False",
    ],
    "slice bound": [
        f"self.keys[start:end] -> self.keys[{new}]"
        for new in (":end", "start:", "start + 1:end", "start - 1:end", "start:end + 1")
    ],
    "index": [f"self.values[:, start] -> self.values[:, start {op} 1]" for op in "+-"],
    "keyword argument": ["torch.cat([k, v], dim=-1) -> torch.cat([k, v])"],
    "order of arguments": ["self.check(end, len(k)) -> self.check(len(k), end)"],
    "call": [
        "v.clone() -> v",
        "len(k) -> k",
        "k.add(v, alpha=0.5) -> k",
        "k.add(v, alpha=0.5) -> v",
    ],
    "in place": ["k.add(v, alpha=0.5) -> k.add_(v, alpha=0.5)"],
    "name": [
        "[k, v] -> [v, v]",
        "[k, v] -> [k, k]",
        "self.keys[start:end] -> self.keys[end:end]",
        "2 * x -> 2 * xs",
    ],
    "attribute": [
        "self.keys[start:end] -> self.values[start:end]",
        "self.values[:, start] -> self.keys[:, start]",
    ],
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_kind_of_change_is_made(found, kind):
    made = {mutant.what.split(": ", 1)[1] for mutant in found if mutant.kind == kind}
    assert set(EXPECTED[kind]) <= made, made


def test_there_is_no_other_kind(found):
    assert {mutant.kind for mutant in found} == set(EXPECTED)


def test_a_line_says_what_the_source_has_in_another_way(found):
    [mutant] = [m for m in found if m.what.endswith("2 * x -> 2 + x")]
    assert SOURCE.splitlines()[mutant.line - 1].strip() == "total: int = 2 * x"
    assert mutant.what.startswith(f"line {mutant.line}: ")
    assert mutant.source == ast.unparse(ast.parse(SOURCE.replace("2 * x", "2 + x")))


def test_some_things_are_never_changed(found):
    for mutant in found:
        for kept in ('"""A docstring with 1 and True."""', '"""Another."""', "@made(1)"):
            assert kept in mutant.source
        assert "k: Tuple[1, 2]" in mutant.source and "masked: bool" in mutant.source
        assert ("{x + 1}" in mutant.source) == ("{" in mutant.source)
    assert not any("return None" in mutant.what for mutant in found)


def test_a_body_that_becomes_empty_passes():
    [mutant] = [m for m in mutants("def f(x):\n    g(x)") if "dropped" in m.what]
    assert mutant.source == "def f(x):\n    pass"


def test_no_two_are_equal_and_the_order_is_the_same_each_time(found):
    dumps = {ast.dump(ast.parse(mutant.source)) for mutant in found}
    assert len(dumps | {ast.dump(ast.parse(SOURCE))}) == len(found) + 1
    assert len({mutant.what for mutant in found}) == len(found)
    assert list(mutants(SOURCE)) == found


def test_only_what_is_named_is_changed(found):
    inside = list(mutants(SOURCE, within=["Store.fill"]))
    lines = {mutant.line for mutant in inside}
    assert inside == [mutant for mutant in found if mutant.line in lines]
    assert "def fill" in SOURCE.splitlines()[min(lines) - 1]
    assert list(mutants(SOURCE, within=["Store"])) == found
    with pytest.raises(ValueError, match="Stor, Store.fil"):
        list(mutants(SOURCE, within=["Store.put", "Stor", "Store.fil"]))


def test_a_sample_is_spread_over_the_lines(found):
    lines = sorted({mutant.line for mutant in found})
    one_each = sample(found, len(lines))
    assert [mutant.line for mutant in one_each] == lines
    assert sample(found, len(lines)) == one_each != sample(found, len(lines), seed=1)
    few = sample(found, 3)
    assert [mutant.line for mutant in few] == [lines[i * len(lines) // 3] for i in range(3)]
    assert sample(found, 10**6) == found and sample(found, 0) == sample([], 5) == []


def test_the_two_caches_have_many_and_all_compile():
    source = CACHES.read_text(encoding="utf-8")
    within = ["GrowingCache", "PreallocatedCache"]
    made = list(mutants(source, within))
    assert len(made) >= 150
    for mutant in made:
        compile(mutant.source, str(CACHES), "exec")
