"""Small mistakes, made by a program: a source text, changed in one place at a time.

    for mutant in mutants(source, within=["PreallocatedCache"]):
        print(mutant.what)      # line 52: k.size(2) -> k.size(1)

A test or a check that accepts a mutant has missed a mistake, or there was none: some changes make
no difference. Docstrings, annotations, decorators, f-strings and None stay as they are.
`small_changes` holds the kinds of change.
"""

import ast
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from small_changes import CHANGES, Site


@dataclass(frozen=True)
class Mutant:
    """The whole changed source, its one change in words, and the line and kind of the change."""

    line: int
    what: str
    source: str
    kind: str


def mutants(source: str, within: Sequence[str] = ()) -> Iterator[Mutant]:
    """All sources that differ from `source` by one small change, from top to bottom.

    `within` names the classes and functions ("GrowingCache", "GrowingCache.append") that alone are
    changed. Raises ValueError if the source does not define one of them.
    """
    tree = ast.parse(source)
    sites = list(Site(tree).below())[1:]
    if missing := set(within) - {site.path for site in sites}:
        raise ValueError(f"The source does not define {', '.join(sorted(missing))}.")
    seen, said = {ast.dump(tree)}, Counter()
    for site in sites:
        if within and not any(f"{site.path}.".startswith(f"{name}.") for name in within):
            continue
        for change in CHANGES:
            for new in change(site):
                what, changed = edited(tree, site, new)
                if is_new(changed, seen):
                    what, kind = f"line {site.line}: {what}", change.__name__.replace("_", " ")
                    said[what] += 1
                    again = f" (number {said[what]})" if said[what] > 1 else ""
                    yield Mutant(site.line, what + again, changed, kind)


def sample(found: Sequence[Mutant], number: int, seed: int = 0) -> list[Mutant]:
    """So many of the mutants, in their order, spread evenly over the lines."""
    by_line = defaultdict(list)
    for place, mutant in enumerate(found):
        by_line[mutant.line].append(place)
    for line, places in by_line.items():
        random.Random(f"{seed} {line}").shuffle(places)
    chosen: list[int] = []
    while len(chosen) < min(number, len(found)):
        turn = [places.pop() for _, places in sorted(by_line.items()) if places]
        wanted = min(number - len(chosen), len(turn))
        chosen += [turn[i * len(turn) // wanted] for i in range(wanted)]
    return [found[place] for place in sorted(chosen)]


def edited(tree: ast.Module, site: Site, new: ast.AST | None) -> tuple[str, str]:
    """What a change does, in words, and the whole source with it. Leaves the tree as it was."""
    old, shown = getattr(site.owner, site.field), site.shown
    before = text(shown)
    setattr(site.owner, site.field, site.replaced(new))
    after, source = text(new if shown is site.node else shown), ast.unparse(tree)
    setattr(site.owner, site.field, old)
    if new is None:
        return f"dropped: {before}", source
    if before == after:  # the change is not in the first line of what is shown
        before, after = text(site.node), text(new)
    return f"{before} -> {after}", source


def text(node: ast.AST | None) -> str:
    """A node as source text, its first line."""
    return ast.unparse(node).strip().split("\n")[0] if node is not None else ""


def is_new(source: str, seen: set[str]) -> bool:
    """Whether it compiles, to a tree that is not among those seen; from now on it is."""
    known = len(seen)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            compile(tree, "mutant", "exec")
    except SyntaxError:
        return False
    seen.add(ast.dump(tree))
    return len(seen) > known
