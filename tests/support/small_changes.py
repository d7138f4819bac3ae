"""The kinds of small change that `mutants` makes, and where in a syntax tree they can be made.

Each kind is a function that takes a `Site` and yields what could stand there instead: a new node,
or None for a statement that is dropped. The name of the function says what is changed.
"""

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv)
COMPARED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
PAIRS = [(ast.And, ast.Or), (ast.BitAnd, ast.BitOr), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)]
GROUPS = [ARITHMETIC, COMPARED, *PAIRS]
OTHERS = {op: [other for other in group if other is not op] for group in GROUPS for op in group}
OTHERS |= {ast.Div: [ast.Mult], ast.Mod: [ast.FloorDiv], ast.Pow: [ast.Mult]}
HAVE_IN_PLACE = ("add", "mul", "masked_fill", "clamp")
MOST_NAMES = 4

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Starred, *COMPREHENSIONS)
DROPPED = (ast.Assign, ast.AugAssign, ast.Delete, ast.Break, ast.Continue)
FIXED_FIELDS = ("annotation", "returns", "decorator_list", "type_params")
FIXED_NODES = ("JoinedStr", "TemplateStr")
PARTS = (ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.Slice, ast.Starred, ast.UnaryOp)
PARTS += (ast.keyword, ast.comprehension, ast.withitem)


@dataclass(frozen=True)
class Site:
    """A node and where it is: in `owner.field`, or as number `index` of that list.

    `names` are those of the functions around it, `attributes` those of self in its class, called
    ones and others apart; all in the order in which they come up.
    """

    node: ast.AST
    parents: tuple[ast.AST, ...] = ()
    field: str = ""
    index: int | None = None
    path: str = ""
    names: tuple[str, ...] = ()
    attributes: tuple[tuple[str, ...], ...] = ()

    @property
    def owner(self) -> ast.AST:
        return self.parents[-1]

    @property
    def shown(self) -> ast.AST:
        """The node, or the smallest one around it that says what it is for."""
        return next(n for n in (self.node, *self.parents[::-1]) if not isinstance(n, PARTS))

    @property
    def line(self) -> int:
        return next(n.lineno for n in (self.node, *self.parents[::-1]) if hasattr(n, "lineno"))

    def below(self) -> Iterator["Site"]:
        """This site, and all inside it that may be changed, from top to bottom."""
        yield self
        node, path, names, attributes = self.node, self.path, self.names, self.attributes
        if isinstance(node, DEFINITIONS):
            path = f"{path}.{node.name}".lstrip(".")
        if isinstance(node, FUNCTIONS + COMPREHENSIONS):
            names = tuple(dict.fromkeys((*names, *bound(node))))
        if isinstance(node, ast.ClassDef):
            attributes = attributes_of_self(node)
        for field, value in ast.iter_fields(node):
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                fixed = field in FIXED_FIELDS or type(child).__name__ in FIXED_NODES
                if isinstance(child, ast.AST) and not fixed:
                    parents = (*self.parents, node)
                    yield from Site(child, parents, field, index, path, names, attributes).below()

    def replaced(self, new: ast.AST | None) -> object:
        """The value of the owner's field with `new`, or nothing, in place of the node."""
        if self.index is None:
            return new
        whole = list(getattr(self.owner, self.field))
        whole[self.index : self.index + 1] = [] if new is None else [new]
        return whole or [ast.Pass()]


def operator(site: Site) -> Iterator[ast.AST]:
    node = site.node
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        yield from (changed(node, op=other()) for other in OTHERS.get(type(node.op), []))
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in OTHERS[type(op)]:
                yield changed(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])


def negation(site: Site) -> Iterator[ast.AST]:
    if isinstance(site.node, ast.UnaryOp):
        yield site.node.operand
    elif site.field in ("test", "ifs"):
        yield ast.UnaryOp(ast.Not(), site.node)


def constant(site: Site) -> Iterator[ast.AST]:
    """Of -1 the 1 is a constant, so it and -2 change into each other in this way, too."""
    value = site.node.value if isinstance(site.node, ast.Constant) else None
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield from map(number, (value + 1, value - 1))
    elif isinstance(value, float):
        yield from map(number, (2 * value, value / 2, -value))


def slice_bound(site: Site) -> Iterator[ast.AST]:
    for bound in ("lower", "upper", "step") if isinstance(site.node, ast.Slice) else ():
        if (value := getattr(site.node, bound)) is not None:
            for new in (None, *(shifted(value) if bound != "step" else ())):
                yield changed(site.node, **{bound: new})


def index(site: Site) -> Iterator[ast.AST]:
    in_tuple = isinstance(site.owner, ast.Tuple) and len(site.parents) > 1
    around = site.parents[-2] if in_tuple else None
    inside = site.field == "slice" or getattr(around, "slice", None) is site.owner
    if inside and not isinstance(site.node, ast.Slice | ast.Tuple | ast.Starred):
        yield from shifted(site.node)


def keyword_argument(site: Site) -> Iterator[ast.AST]:
    if isinstance(site.node, ast.Call):
        keywords = site.node.keywords
        for i in range(len(keywords)):
            yield changed(site.node, keywords=keywords[:i] + keywords[i + 1 :])


def order_of_arguments(site: Site) -> Iterator[ast.AST]:
    if isinstance(site.node, ast.Call):
        args = site.node.args
        for i in range(len(args) - 1):
            yield changed(site.node, args=[*args[:i], args[i + 1], args[i], *args[i + 2 :]])


def call(site: Site) -> Iterator[ast.AST]:
    """What a function is called with, or what a method is called on, in place of the call."""
    node = site.node
    if isinstance(node, ast.Call) and not isinstance(site.owner, ast.Expr | ast.Raise):
        if node.args and not isinstance(node.args[0], DISPLAYS):
            yield node.args[0]
        if isinstance(node.func, ast.Attribute) and is_value(node.func.value, site.names):
            yield node.func.value


def name(site: Site) -> Iterator[ast.AST]:
    node = site.node
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in site.names:
        yield from (changed(node, id=other) for other in near(node.id, site.names, node))


def attribute(site: Site) -> Iterator[ast.AST]:
    node = site.node
    for group in site.attributes if isinstance(node, ast.Attribute) and is_self(node.value) else ():
        if node.attr in group:
            yield from (changed(node, attr=other) for other in near(node.attr, group, node))


def statement(site: Site) -> Iterator[ast.AST | None]:
    """Dropped, but not an only `return`; of a declaration, the value."""
    node = site.node
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        yield changed(node, value=None)
    if isinstance(node, DROPPED) or (isinstance(node, ast.Expr) and not is_text(node)):
        yield None
    if isinstance(node, ast.Return):
        others = [n for n in getattr(site.owner, site.field) if n is not node and not is_text(n)]
        yield from [None] if others else []


def branch(site: Site) -> Iterator[ast.AST]:
    node = site.node
    if isinstance(node, ast.If):
        yield from (changed(node, test=ast.Constant(value)) for value in (True, False))
    elif isinstance(node, ast.While):
        yield changed(node, test=ast.Constant(False))
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif site.field == "ifs":
        yield from (ast.Constant(True), ast.Constant(False))


def loop(site: Site) -> Iterator[ast.AST]:
    """All but the last round, all but the first."""
    node = site.node
    if isinstance(node, ast.For | ast.comprehension):
        every = ast.Call(ast.Name("list", ast.Load()), [node.iter], [])
        for part in (ast.Slice(None, number(-1)), ast.Slice(ast.Constant(1), None)):
            yield changed(node, iter=ast.Subscript(every, part, ast.Load()))


def plain_assignment(site: Site) -> Iterator[ast.AST]:
    node = site.node
    if isinstance(node, ast.AugAssign):
        yield ast.copy_location(ast.Assign([node.target], node.value), node)


def in_place(site: Site) -> Iterator[ast.AST]:
    func = site.node.func if isinstance(site.node, ast.Call) else None
    if getattr(func, "attr", "") in HAVE_IN_PLACE and is_value(func.value, site.names):
        yield changed(site.node, func=changed(func, attr=f"{func.attr}_"))


CHANGES = [
    statement,
    branch,
    loop,
    plain_assignment,
    operator,
    negation,
    constant,
    slice_bound,
    index,
    keyword_argument,
    order_of_arguments,
    call,
    in_place,
    name,
    attribute,
]


def changed(node: ast.AST, **fields: object) -> ast.AST:
    return ast.copy_location(type(node)(**dict(ast.iter_fields(node)) | fields), node)


def number(value: float) -> ast.expr:
    return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if value < 0 else ast.Constant(value)


def shifted(node: ast.expr) -> Iterator[ast.expr]:
    """One more and one less, where that is not the change of a constant."""
    if not isinstance(getattr(node, "operand", node), ast.Constant):
        for op in (ast.Add(), ast.Sub()):
            yield ast.BinOp(node, op, ast.Constant(1))


def near(name: str, names: Sequence[str], node: ast.AST) -> list[str]:
    """At most four of the other names: its neighbours, and some drawn from the rest."""
    place = names.index(name)
    beside = [*names[max(place - 1, 0) : place], *names[place + 1 : place + 2]]
    rest = [other for other in names if other != name and other not in beside]
    drawn = random.Random(str(position(node)))
    return beside + drawn.sample(rest, min(len(rest), MOST_NAMES - len(beside)))


def bound(scope: ast.AST) -> list[str]:
    """The names that a function or a comprehension itself gives values to."""
    inside = list(ast.iter_child_nodes(scope))
    for node in inside:
        if not isinstance(node, FUNCTIONS + DEFINITIONS + COMPREHENSIONS):
            inside.extend(ast.iter_child_nodes(node))
    stored = [n for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    stored += [n for n in inside if isinstance(n, ast.arg)]
    names = [getattr(n, "id", None) or n.arg for n in sorted(stored, key=position)]
    return [name for name in names if name not in ("self", "cls", "_")]


def attributes_of_self(node: ast.ClassDef) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the class calls of self, and what it only reads or writes."""
    found = [n for n in ast.walk(node) if isinstance(n, ast.Attribute) and is_self(n.value)]
    called = {n.func.attr for n in ast.walk(node) if isinstance(n, ast.Call) and n.func in found}
    names = list(dict.fromkeys(n.attr for n in sorted(found, key=position)))
    return tuple(n for n in names if n in called), tuple(n for n in names if n not in called)


def position(node: ast.AST) -> tuple[int, int]:
    return node.lineno, node.col_offset


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def is_text(node: ast.AST) -> bool:
    """Whether a statement says something and does nothing: a docstring, or `...`."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_value(node: ast.AST, names: Sequence[str]) -> bool:
    """Whether its methods are those of a value: not of a module, of self or of super()."""
    if isinstance(node, ast.Attribute):
        return is_self(node.value) or is_value(node.value, names)
    if isinstance(node, ast.Name):
        return node.id in names
    of_super = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return not isinstance(node, ast.Constant) and not (of_super and node.func.id == "super")
