"""The notebooks as documents: executed, in order, clean, and honest about what is not compared."""

import re
from importlib import import_module

import nbformat
import pytest

from authoring import COLAB
from authoring.site.extract import figure
from course_utils import checks
from course_utils.transformer import ROOT, load_config

pytestmark = pytest.mark.authors

ALL = sorted(
    path
    for path in (ROOT / "notebooks").rglob("*.ipynb")
    if not {"exercises", ".ipynb_checkpoints"} & set(path.parts)
)
FRONT_DOOR = ROOT / "notebooks" / "00_start_here.ipynb"
PATHS = [path for path in ALL if path.stem[:2].isdigit() and path != FRONT_DOOR]
PAGES = [path for path in ALL if path not in PATHS]
FOLDERS = ("speed", "flash", "smaller", "serving", "parallel", "gpt2", "wild")
CHAPTERS = dict(zip(("07", "08", "09", "10", "11", "12", "13"), FOLDERS, strict=True))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
PREDICT = "> **Predict first.** "
ANSWERED = re.compile(
    rf"{re.escape(PREDICT)}(?:.|\n> )+\n>\n"
    r"> <details><summary>The answer, and why</summary>\n>\n(?P<answer>(?:> .+\n)+?)> </details>"
)


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    """Without the cell for Colab, which only runs there."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.get("id") != COLAB]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def prose(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def glossary():
    """The entries of the glossary: the names of each, its text, and the files that it links."""
    path = ROOT / "notebooks" / "glossary.ipynb"
    for names, text in re.findall(r"^- (\*\*.+?\*\*): (.+)$", prose(path), re.M):
        files = [path.parent / target for target in LINK.findall(text)]
        yield re.findall(r"\*\*(.+?)\*\*", names), text, files


def rows(markdown):
    """The first cells of the tables whose head is `letter`, and the rest of their rows."""
    for table in re.findall(r"^\| letter \|.*\n((?:\|.*\n?)+)", markdown, re.M):
        for line in table.splitlines()[1:]:
            first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            yield first, rest


def letters(markdown):
    return {letter for first, _ in rows(markdown) for letter in re.findall(r"\b\w\b", first)}


def test_there_are_notebooks_a_front_door_and_two_pages():
    assert len(PATHS) == 13
    assert [path.stem for path in PAGES] == ["00_start_here", "glossary", "notation"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_front_door_shows_each_notebook_with_its_first_exercise(path):
    """Its last table is not compared when it is run again, so it could be of another year."""
    table = nbformat.read(FRONT_DOOR, as_version=4).cells[-1].outputs[0].data["text/plain"]
    (first,) = re.findall(r"^### Exercise (1: .+)$", prose(path), re.M)
    assert re.search(rf"^{path.stem} .* {re.escape(first)}$", table, re.M)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for target in LINK.findall(prose(path)):
        assert ":" in target or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_links_the_glossary_and_the_notation_under_its_way_through_the_course(path):
    up = "" if path.parent.name == "notebooks" else "../"
    first = nbformat.read(path, as_version=4).cells[0].source
    title, _, do_it, _, way, empty, words, _ = first.split("\n", maxsplit=7)
    assert title.startswith("# ") and way.startswith("> ") and empty == ">"
    door = f"[start here]({up}00_start_here.ipynb)"
    assert do_it == f"> **[Do it yourself]({up}exercises/{path.name})** · {door}"
    assert (
        words
        == f"> Words: [glossary]({up}glossary.ipynb) · letters: [notation]({up}notation.ipynb)"
    )


@pytest.mark.parametrize("path", PAGES[1:], ids=lambda path: path.stem)
def test_a_page_is_valid_and_holds_no_code(path):
    page = nbformat.read(path, as_version=4)
    nbformat.validate(page)
    assert {cell.cell_type for cell in page.cells} == {"markdown"}


def test_the_front_door_leads_to_each_chapter_worked_and_as_an_exercise():
    links = LINK.findall(prose(FRONT_DOOR))
    for path in PATHS:
        worked = path.relative_to(FRONT_DOOR.parent).as_posix()
        assert links.count(worked) == links.count(f"exercises/{path.name}") == 1


def test_the_glossary_is_in_order_under_its_letters():
    first = [names[0] for names, _, _ in glossary()]
    assert len(first) == prose(ROOT / "notebooks" / "glossary.ipynb").count("\n- ")
    assert first == sorted(set(first), key=str.casefold)
    cells = nbformat.read(ROOT / "notebooks" / "glossary.ipynb", as_version=4).cells[1:]
    for cell in cells:
        initials = re.findall(r"^- \*\*(.)", cell.source, re.M)
        assert {initial.upper() for initial in initials} == {cell.source.removeprefix("## ")[0]}


def test_a_word_of_the_glossary_is_used_in_each_notebook_that_it_links():
    for names, _, files in glossary():
        assert files, names
        for file in files:
            cells = nbformat.read(file, as_version=4).cells
            text = " ".join(" ".join(cell.source for cell in cells).replace("*", "").split())
            assert any(re.search(rf"\b{re.escape(name)}", text, re.I) for name in names), names


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_notation_knows_every_letter_in_a_notebooks_table(path):
    assert letters(prose(path))
    assert letters(prose(path)) <= letters(prose(ROOT / "notebooks" / "notation.ipynb"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_opens_with_a_question_and_a_picture_and_folds_its_letters_in(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.get("id") != COLAB]
    first, picture, caption, rest = cells[:4]
    assert "?" in first.source and "| letter |" not in first.source
    assert re.search(r"show\((plots\.)?drawings\.\w+\(\), ", picture.source)
    assert caption.source.startswith("**Figure 1. ")
    folded = re.search(r"<details>(.+?)</details>", rest.source, re.S)[1]
    assert letters(folded) == letters(prose(path))


def test_figures_are_numbered_in_order_and_those_that_are_spoken_of_are_there(notebook):
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    captions = [re.match(r"\*\*Figure (\d+)\. ", text) for text in texts]
    numbers = [int(caption[1]) for caption in captions if caption]
    assert numbers == list(range(1, len(numbers) + 1))
    spoken_of = re.findall(r"Figures? (\d+)(?: and (\d+))?(?! of)", "\n".join(texts))
    assert {int(n) for pair in spoken_of for n in pair if n} <= set(numbers)


def test_the_sizes_in_the_notation_are_those_of_the_model():
    config = load_config()
    config["d_head"] = config["d_model"] // config["num_heads"]
    found = {}
    for _, (means, size) in rows(prose(ROOT / "notebooks" / "notation.ipynb")):
        if size.isdigit():
            found[re.search(r"\(`(\w+)`\)$", means)[1]] = int(size)
    assert found == config


def test_it_is_valid(notebook):
    nbformat.validate(notebook)


def test_every_code_cell_was_executed_in_order_from_a_fresh_kernel(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_no_output_is_an_error_or_goes_to_stderr(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"


def test_every_ignored_output_says_why(notebook):
    for cell in code_cells(notebook):
        ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
        first = cell.source.splitlines()[0]
        assert ignored == bool(re.match(r"# Output not compared: .{10,}", first)), first
        assert "NBVAL_" not in cell.source


def test_cells_fit_on_a_screen(notebook):
    assert max(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 45


def test_every_picture_has_alt_text_and_a_caption(notebook):
    for cell, after in zip(notebook.cells, notebook.cells[1:], strict=False):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 40
                moves = "text/html" in output.data
                assert after.source.startswith("**What to see.**" if moves else "**Figure")


def test_no_path_of_the_machine_that_ran_it(notebook):
    text = nbformat.writes(notebook)
    assert not re.search(r"/(home|Users|root|tmp|work)/|[A-Z]:\\\\", text)


def test_predictions_are_answered_by_the_next_cell(notebook):
    asked = [i for i, cell in enumerate(notebook.cells) if "**Predict first.**" in cell.source]
    assert len(asked) >= 2
    for i in asked:
        assert notebook.cells[i].source.rpartition("\n\n")[2].startswith(PREDICT)
        assert notebook.cells[i + 1].cell_type == "code"
        assert notebook.cells[i + 1].outputs


def test_the_answer_to_a_prediction_is_folded_below_it(notebook):
    for cell in notebook.cells:
        if "**Predict first.**" in cell.source:
            question = cell.source.rpartition("\n\n")[2]
            found = ANSWERED.fullmatch(question)
            assert found, f"{cell.id}: {question}"
            assert 20 <= len(found["answer"].split()) <= 120, cell.id


def exercises_of(number):
    if number in checks.EXERCISES:
        return checks.EXERCISES[number]
    return import_module(f"course_utils.going_further.{CHAPTERS[number]}.checks").EXERCISES[number]


def test_it_ends_with_the_progress_of_its_own_exercises(notebook):
    number = re.search(r"# (\d\d) ·", notebook.cells[0].source)[1]
    last = code_cells(notebook)[-2 if number == "06" else -1]  # the course ends with the sweep
    assert last.source == f'checks.progress("{number}", globals())'
    cards = re.findall(r"^### Exercise (.+)$", "\n".join(c.source for c in notebook.cells), re.M)
    assert list(exercises_of(number)) == cards
    table = last.outputs[-1].data["text/plain"]
    assert table.count(checks.PASSES) == len(cards)


def test_the_readmes_picture_is_the_last_figure_of_06():
    picture, _ = figure(ROOT / "notebooks" / "06_latency_sweep.ipynb", "The latency sweep")
    assert picture == (ROOT / "notebooks" / "latency_sweep.png").read_bytes()
    assert "(notebooks/latency_sweep.png)" in (ROOT / "README.md").read_text(encoding="utf-8")
