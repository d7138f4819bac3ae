"""The code of a notebook and of a file of the package, to be compared without docstrings."""

import ast
from pathlib import Path

import nbformat


def code_of(notebook: Path) -> str:
    """All code of a notebook, cell by cell."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")


def without_docstrings(source: str) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return tree


def definitions(source: str) -> dict[str, str]:
    """Functions and classes at the top of a source text, by name."""
    nodes = without_docstrings(source).body
    return {n.name: ast.dump(n) for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def bodies(source: str) -> dict[str, dict[str, list[str]]]:
    """For each function and class at the top: its functions' statements, whatever they annotate."""
    found = {}
    for node in without_docstrings(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            functions = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef)]
            found[node.name] = {f.name: [ast.dump(line) for line in f.body] for f in functions}
    return found
