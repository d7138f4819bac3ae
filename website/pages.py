"""The Sphinx extension that turns the course's files into pages."""

import posixpath
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.parsers import Parser
from sphinx.util.docutils import SphinxDirective

from . import extract
from .stage import for_readers, links_on_top

FOLDER_LINK = re.compile(r"\]\(([\w./-]+)\)")


class CodeParser(Parser):
    """A Python file as a page: its path, and its text in colour."""

    supported = ("python",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Fill the document with a title and one block of code."""
        path = document.settings.env.docname + ".py"
        section = nodes.section(ids=["code"])
        section += nodes.title("", path)
        section += nodes.literal_block(inputstring, inputstring, language="python")
        document += section


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Prepare a file's text before it is parsed."""
    if app.env.doc2path(docname).suffix == ".ipynb":
        source[0] = for_readers(source[0], links_on_top(docname, app.env.found_docs))
    elif app.env.doc2path(docname).suffix == ".md":
        source[0] = FOLDER_LINK.sub(lambda link: to_page(app, docname, link), source[0])


def to_page(app: Sphinx, docname: str, link: re.Match) -> str:
    """A link to a folder, led to the page about it."""
    place = posixpath.normpath(posixpath.join(posixpath.dirname(docname), link[1]))
    if not Path(app.srcdir, place).is_dir():
        return link[0]
    page = place + "/index.md" if place + "/index" in app.env.found_docs else "code.md"
    return f"]({posixpath.relpath(page, posixpath.dirname(docname) or '.')})"


def add_captions(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Make each picture and the paragraph after it that begins with "Figure" one figure."""
    for image in list(doctree.findall(nodes.image)):
        cell = image
        while cell.parent and "cell" not in cell.get("classes", []):
            cell = cell.parent
        caption = cell.next_node(descend=False, siblings=True) if cell.parent else None
        if isinstance(caption, nodes.paragraph) and caption.astext().startswith("Figure"):
            caption.parent.remove(caption)
            number = re.search(r"\d+", caption.astext())[0]
            figure = nodes.figure(
                "", nodes.caption("", "", *caption.children), ids=[f"figure-{number}"]
            )
            image.parent.replace(image, figure)
            figure.insert(0, image)


class FigureOf(SphinxDirective):
    """A figure of a notebook, by the name that its caption begins with."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The picture, with its own alt text and the directive's content as the caption."""
        path = Path(self.env.srcdir, self.arguments[0])
        self.env.note_dependency(str(path))
        picture, alt = extract.figure(path, " ".join(self.content))
        name = re.sub(r"\W+", "-", f"{path.stem}-{self.content[0]}").lower() + ".png"
        Path(self.env.srcdir, name).write_bytes(picture)
        image = nodes.image(uri=name, alt=alt)
        return [nodes.figure("", image, ids=["figure-" + Path(name).stem])]


class TableOf(SphinxDirective):
    """A table that a notebook printed, by a column that only it has."""

    required_arguments = 1
    has_content = True
    option_spec = {"caption": str}

    def run(self) -> list[nodes.Node]:
        """The table as it stands in the notebook's output."""
        path = Path(self.env.srcdir, self.arguments[0])
        self.env.note_dependency(str(path))
        html = extract.table(path, " ".join(self.content))
        return [nodes.raw("", extract.accessible(html), format="html")]


def mend_tables(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give the tables that pandas printed what a screen reader and a phone need."""
    for raw in doctree.findall(nodes.raw):
        if "<table" in raw.astext():
            raw.children = [nodes.Text(extract.accessible(raw.astext()))]


def setup(app: Sphinx) -> dict:
    """Register everything with Sphinx."""
    app.add_source_suffix(".py", "python")
    app.add_source_parser(CodeParser)
    app.add_directive("figure-of", FigureOf)
    app.add_directive("table-of", TableOf)
    app.connect("source-read", read_source)
    app.connect("doctree-resolved", add_captions)
    app.connect("doctree-resolved", mend_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
