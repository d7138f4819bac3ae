"""The Sphinx extension that turns the course's files into pages."""

import ast
import posixpath
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.parsers import Parser
from sphinx.util.docutils import SphinxDirective

from . import extract
from .stage import ZIP, for_readers, links_on_top

EXERCISES = "notebooks/exercises/"
FOLDER_LINK = re.compile(r"\]\(([\w./-]+)\)")
SHORT = 16  # characters
ALT_TEXT = re.compile(r"!\[[^]]*\]")


class CodeParser(Parser):
    """A Python file as a page: its path, and its text in colour."""

    supported = ("python",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Fill the document with a title, the path and one block of code."""
        path = document.settings.env.docname + ".py"
        section = nodes.section(ids=["code"])
        section += nodes.title("", posixpath.basename(path))
        section += nodes.paragraph("", "", nodes.literal(path, path))
        section += nodes.literal_block(inputstring, inputstring, language="python")
        document += section


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Prepare a file's text before it is parsed."""
    kind = Path(app.env.doc2path(docname)).suffix
    if kind == ".ipynb":
        suffix = " · exercises" if docname.startswith(EXERCISES) else ""
        zipped = Path(app.srcdir, ZIP).exists()
        links = links_on_top(docname, zipped)
        source[0] = for_readers(source[0], links, suffix)
    elif kind == ".md":
        if docname == "README":
            source[0] = without_its_front(source[0])
        source[0] = ALT_TEXT.sub(lambda alt: alt[0].replace("\n", " "), source[0])
    if kind in (".ipynb", ".md"):
        source[0] = FOLDER_LINK.sub(lambda link: to_page(app, docname, link), source[0])


def without_its_front(readme: str) -> str:
    """The README from "Setting up" on: the landing page has the rest."""
    return "# The course's folder\n\n" + readme[readme.index("## Setting up") :]


def to_page(app: Sphinx, docname: str, link: re.Match) -> str:
    """A link to a folder, led to the page about it."""
    here = posixpath.dirname(docname)
    place = posixpath.normpath(posixpath.join(here, link[1]))
    if not Path(app.srcdir, place).is_dir():
        return link[0]
    page = place + "/index.md" if place + "/index" in app.env.found_docs else "code.md"
    return f"]({posixpath.relpath(page, here or '.')})"


def keep_out_of_search(app: Sphinx, doctree: nodes.document) -> None:
    """Find each text once: the exercises repeat the worked notebooks."""
    if app.env.docname.startswith(EXERCISES):
        app.env.metadata[app.env.docname]["nosearch"] = "true"


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
            figure = nodes.figure(ids=[f"figure-{number}"])
            image.parent.replace(image, figure)
            figure += [image, nodes.caption("", "", *caption.children)]


def keep_short_code_whole(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Mark code in a sentence that is too short to be broken over two lines."""
    for literal in doctree.findall(nodes.literal):
        if len(literal.astext()) <= SHORT:
            literal["classes"].append("short")


def mend_tables(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give tables the headers that a screen reader reads out."""
    for raw in doctree.findall(nodes.raw):
        if "<table" in raw.astext():
            raw.children = [nodes.Text(extract.accessible(raw.astext()))]
    for table in doctree.findall(nodes.table):
        head = next(table.findall(nodes.thead), None)
        if head is not None and not head.astext().strip():  # the card of an exercise
            head.parent.remove(head)
            next(table.findall(nodes.colspec))["stub"] = 1


def name_the_sheet(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give the cheat sheet a class of its own: it is printed on one page."""
    if docname == "cheat_sheet":
        next(doctree.findall(nodes.section))["classes"].append("sheet")


class FigureOf(SphinxDirective):
    """A figure of a notebook, by its name; the directive's content is the caption."""

    required_arguments = 1
    has_content = True
    option_spec = {"figure": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """The picture with its own alt text."""
        name = self.options["figure"]
        picture, alt = extract.figure(Path(self.env.srcdir, self.arguments[0]), name)
        identity = nodes.make_id(name)
        Path(self.env.srcdir, identity + ".png").write_bytes(picture)
        caption = self.parse_content_to_nodes()[0]
        uri = identity + ".png"
        whole = nodes.reference("", "", nodes.image(uri=uri, alt=alt), refuri="_images/" + uri)
        return [nodes.figure("", whole, nodes.caption("", "", *caption.children), ids=[identity])]


class TableOf(SphinxDirective):
    """A table that a notebook printed, by a column that only it has; the content names the rows."""

    required_arguments = 1
    has_content = True
    option_spec = {
        "column": directives.unchanged_required,
        "caption": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """The table as it is in the notebook's output."""
        html = extract.table(Path(self.env.srcdir, self.arguments[0]), self.options["column"])
        rows = " ".join(self.content).split()
        html = extract.captioned(extract.only(html, rows), self.options["caption"])
        return [nodes.raw("", extract.scrolling(html, self.options["caption"]), format="html")]


class CourseMap(SphinxDirective):
    """All notebooks, with the question that each answers and how long it takes."""

    def run(self) -> list[nodes.Node]:
        """The table of the README."""
        readme = Path(self.env.srcdir, "README.md").read_text(encoding="utf-8")
        return self.parse_text_to_nodes(extract.course_map(readme))


class ModulesOf(SphinxDirective):
    """The files of a package, with the first line of what each says of itself."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A table of files, and the entries of the sidebar."""
        folder = self.arguments[0]
        paths = sorted(Path(self.env.srcdir, folder).glob("*.py"))
        lines = ["| file | what it holds |", "|---|---|"]
        for path in paths:
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = " ".join(doc.partition("\n\n")[0].split())
            lines.append(f"| [`{path.name}`]({folder}/{path.name}) | {first} |")
        names = "\n".join(f"{folder}/{path.stem}" for path in paths)
        table = nodes.container("", *self.parse_text_to_nodes("\n".join(lines)), classes=["map"])
        toctree = f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
        return [table, *self.parse_text_to_nodes(toctree)]


def setup(app: Sphinx) -> dict:
    """Register everything with Sphinx."""
    app.add_source_suffix(".py", "python")
    app.add_source_parser(CodeParser)
    app.add_directive("figure-of", FigureOf)
    app.add_directive("table-of", TableOf)
    app.add_directive("course-map", CourseMap)
    app.add_directive("modules-of", ModulesOf)
    app.connect("source-read", read_source)
    app.connect("doctree-read", keep_out_of_search)
    app.connect("doctree-resolved", add_captions)
    app.connect("doctree-resolved", keep_short_code_whole)
    app.connect("doctree-resolved", mend_tables)
    app.connect("doctree-resolved", name_the_sheet)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
