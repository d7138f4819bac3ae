"""What Python text binds and uses: which lines from elsewhere in a notebook an answer needs."""

import ast
import builtins
import contextlib
import symtable
import threading
import warnings

LONGEST = 100_000  # characters of an exercise: Python needs a thousand bytes for each to read it
COURSE = "course_utils"
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_parser = threading.Lock()


def parsed(code: str) -> list[ast.stmt] | None:
    """The statements of a source text, which may hold magics; None if it is no Python.

    One at a time: Python 3.11 counts the depth of nesting for all threads together.
    """
    if len(code) > LONGEST:
        return None
    with _parser:
        for read in (str, _without_magics):
            with contextlib.suppress(Exception):
                return ast.parse(read(code)).body
    return None


def _without_magics(code: str) -> str:
    from IPython.core.inputtransformer2 import TransformerManager

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lines that end in strange ways
        return TransformerManager().transform_cell(code)


def bound(line: ast.stmt) -> set[str]:
    """The names that an import, a definition or an assignment binds."""
    if isinstance(line, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in line.names}
    if isinstance(line, DEFINITIONS):
        return {line.name}
    stored = [node for target in _targets(line) for node in ast.walk(target)]
    names = [node for node in stored if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


def changed(line: ast.stmt) -> set[str]:
    """The names that it binds, and those of what it gives another attribute or item."""
    within = [node for target in _targets(line) for node in ast.walk(target)]
    return bound(line) | {node.id for node in within if isinstance(node, ast.Name)}


def _targets(line: ast.stmt) -> list[ast.expr]:
    if isinstance(line, ast.Assign):
        return line.targets
    return [line.target] if isinstance(line, ast.AnnAssign) and line.value else []


def used(lines: list[ast.stmt]) -> set[str]:
    """The names that lines take from what has been run before them, or from themselves."""
    tables = [symtable.symtable(_text(lines), "cell", "exec")]
    names: set[str] = set()
    for table in tables:
        tables.extend(table.get_children())
        at_top = table.get_type() == "module"
        names |= {s.get_name() for s in table.get_symbols() if at_top or s.is_global()}
    return names - set(dir(builtins))


def helpers(texts: list[str], notebook: list[str], given: set[str]) -> list[str]:
    """The lines of a notebook's cells that texts of it need: imports, definitions, assignments.

    Of a name that is bound more than once the last one before the texts counts, or the first
    definition after them. Names that are `given` need nothing. Each is a text of its own, in its
    order.
    """
    own = [line for text in texts for line in parsed(text) or []]
    with contextlib.suppress(Exception):  # of lines that are too deep to be written
        known = given.union(*map(bound, own))
        lines = [(at, line) for at, text in enumerate(notebook) for line in parsed(text) or []]
        binding: dict[str, list[int]] = {}
        for n, (_, line) in enumerate(lines):
            for name in bound(line):
                binding.setdefault(name, []).append(n)
        here = max((at for at, text in enumerate(notebook) if text in texts), default=0)
        asked, taken = [*(used(own) - known)], {}
        while asked:
            name = asked.pop()
            if name in known:
                continue
            known.add(name)
            having = binding.get(name, [])
            before = [n for n in having if lines[n][0] <= here]
            after = [n for n in having if isinstance(lines[n][1], DEFINITIONS)]
            for n in before[-1:] or after[:1]:
                if n not in taken and not _of_the_course(lines[n][1]):
                    taken[n] = _text([lines[n][1]])
                    asked += used([lines[n][1]])
        found = [taken[n] for n in sorted(taken)]
        return found if sum(map(len, (*found, *texts))) <= LONGEST else []
    return []


def course_apart(text: str) -> list[str]:
    """The imports of `course_utils` at the top of a text, and the text without them.

    Where answers are graded there is no such package: such a line fails, and what is with it in one
    cell is not run. Where there is none, it is the text alone.
    """
    lines, body = text.split("\n"), parsed(text) or [] if COURSE in text else []
    places = [range(line.lineno - 1, line.end_lineno or 0) for line in body]
    apart = [n for n, line in enumerate(body) if _of_the_course(line)]
    shared = sum(map(len, places)) != len(set().union(*places))
    moved = len(lines) < max((place.stop for place in places), default=0)
    if not apart or shared or moved:
        return [text]
    taken = {at for n in apart for at in places[n]}
    left = ["" if at in taken else line for at, line in enumerate(lines)]
    imports = "\n".join(lines[at] for at in sorted(taken))
    return [imports, "\n".join(left)] if "".join(left).strip() else [text]


def _of_the_course(line: ast.stmt) -> bool:
    modules = [alias.name for alias in line.names] if isinstance(line, ast.Import) else []
    modules = [line.module or ""] if isinstance(line, ast.ImportFrom) else modules
    return any(module.split(".")[0] == COURSE for module in modules)


def _text(lines: list[ast.stmt]) -> str:
    return "\n".join(map(ast.unparse, lines))
