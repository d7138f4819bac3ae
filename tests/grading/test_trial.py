"""`python -m grading try`: one file, what it gets, why, and what is said if that cannot be."""

import copy
import shutil

import nbformat
import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
EDITIONS = ROOT / "notebooks" / "exercises"
WRONG = "def softmax(s):\n    return torch.exp(s) / torch.exp(s).sum(-1, keepdim=True)"


@pytest.fixture
def submission(tmp_path):
    """Notebook 01 under a name that says nothing."""
    return shutil.copy(EDITIONS / "01_attention.ipynb", tmp_path / "b17.ipynb")


@pytest.fixture
def fake_judge(monkeypatch):
    """Nothing is run: what is found can be set, and what was asked can be read."""
    from grading import judge, sandbox

    class Fake:
        statuses, said, asked, page = {}, {}, [], "the page"

    def judge_nobody(found, task, student=""):
        Fake.asked.append((task, student))
        statuses = dict.fromkeys(task.expected, "not done") | Fake.statuses
        return judge.Judged(statuses, Fake.said, dict.fromkeys(Fake.statuses, 1.0), Fake.page)

    monkeypatch.setattr(judge, "judge", judge_nobody)
    monkeypatch.setattr(judge, "judge_course", lambda task: Fake.asked.append("the course"))
    monkeypatch.setattr(judge, "task", lambda *given: given_task(*given))
    monkeypatch.setattr(sandbox, "why_not", lambda: None)
    return Fake


def given_task(notebook, seed, isolated, feedback):
    from grading import graft, judge

    return judge.Task(
        notebook, seed, dict.fromkeys(graft.exercises(notebook), ""), isolated, feedback
    )


def run(*given):
    from grading import __main__

    return __main__.main(["try", *map(str, given)])


def test_it_says_what_each_exercise_gets_and_why(submission, fake_judge, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    fake_judge.statuses = {"softmax": "wrong", "causal_mask": "right", "attention": "wrong"}
    fake_judge.said = {"softmax": "holds \x1b[31mNaN\x1b[0m\n(not a number)", "causal_mask": ""}
    fake_judge.said |= {"attention": ""}
    before = sorted(submission.parent.iterdir())
    assert run(submission, "--seed", 5) == 0
    said = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[0] == "01 · Attention"
    assert lines[2:9] == [
        "exercise points status",
        "1: the softmax that does not overflow 0 of 2 wrong",
        "The check: holds NaN (not a number)",
        "2: the causal mask 2 of 2 right",
        "3: attention 0 of 3 wrong",
        "The check finds nothing: only the inputs of the grading found a mistake.",
        "4: many heads 0 of 3 not done",
    ]
    assert "total 2 of 10" in lines and "seed 5" in lines and "\x1b" not in said
    assert "--page FILE.html" in said
    assert [asked if asked == "the course" else asked[1] for asked in fake_judge.asked] == [
        "b17",
        "the course",
    ]
    assert sorted(submission.parent.iterdir()) == before, "it writes nothing"


def test_what_a_check_says_of_a_right_answer_comes_from_the_answers_before_it(
    submission, fake_judge, capsys
):
    fake_judge.statuses = {"attention": "wrong", "multi_head": "right"}
    fake_judge.said = {"attention": "no", "multi_head": "attention raised an error"}
    assert run(submission) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0 of 3 wrong The check: no" in said
    assert "right With the student's own earlier answers, the check: attention raised" in said


@pytest.mark.parametrize("columns", [20, 40, 72, 200])
def test_it_fits_the_terminal(submission, fake_judge, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    fake_judge.statuses = dict.fromkeys(["softmax", "causal_mask"], "too much on disk")
    fake_judge.said = {"softmax": "a word and " * 300, "causal_mask": "x" * 500}
    assert run(submission) == 0
    table = capsys.readouterr().out.split("\n\nseed")[0]
    assert max(map(len, table.splitlines())) <= max(columns, 41)
    assert "too much on disk" in " ".join(table.split()) and "total" in table


def test_the_course_is_judged_only_if_something_is_not_right(submission, fake_judge):
    fake_judge.statuses = {"softmax": "right"}
    run(submission)
    assert "the course" not in fake_judge.asked


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06"])
def test_it_finds_out_which_notebook_it_is(tmp_path, fake_judge, number):
    (edition,) = EDITIONS.glob(f"{number}_*.ipynb")
    shutil.copy(edition, tmp_path / "06_mine.ipynb")
    assert run(tmp_path / "06_mine.ipynb") == 0
    assert fake_judge.asked[0][0].notebook == number


def test_without_ids_the_name_says_it_or_the_instructor(tmp_path, submission, fake_judge, capsys):
    notebook = nbformat.read(submission, as_version=4)
    for cell in notebook.cells:
        cell.metadata.clear()
    for name in ("02_mine.ipynb", "mine.ipynb"):
        nbformat.write(notebook, tmp_path / name)
    assert run(tmp_path / "02_mine.ipynb") == 0
    assert run(tmp_path / "mine.ipynb", "--notebook", "01") == 0
    assert [task.notebook for task, _ in fake_judge.asked] == ["02", "01"]
    assert run(tmp_path / "mine.ipynb") == 2
    assert "say with --notebook" in capsys.readouterr().err


def test_what_cannot_be_tried_is_said(tmp_path, submission, fake_judge, capsys):
    (tmp_path / "empty.ipynb").write_text("")
    (tmp_path / "text.txt").write_text("no notebook")
    for given, said in {
        "none.ipynb": "there is no such file",
        ".": "is a folder",
        "empty.ipynb": "empty.ipynb is empty",
        "text.txt": "is not JSON",
    }.items():
        assert run(tmp_path / given) == 2
        assert said in capsys.readouterr().err
    assert run(submission, "--page", submission) == 2
    assert "that is the submission itself" in capsys.readouterr().err


def test_grade_sends_a_single_file_to_try(submission, capsys):
    from grading import __main__

    assert __main__.main(["grade", str(submission), "--notebook", "01"]) == 2
    assert f"run `python -m grading try {submission}`" in capsys.readouterr().err


def test_a_machine_that_cannot_is_said(submission, fake_judge, capsys, monkeypatch):
    from grading import judge, sandbox

    def fails(*given):
        raise RuntimeError("no sandbox\x1b[2J today")

    monkeypatch.setattr(judge, "judge", fails)
    assert run(submission) == 2
    assert "b17.ipynb could not be graded: no sandbox today." in capsys.readouterr().err
    monkeypatch.setattr(sandbox, "why_not", lambda: "there is none")
    assert run(submission) == 2
    assert "there is none" in capsys.readouterr().err


def test_a_page_is_written_where_it_is_wanted(tmp_path, submission, fake_judge, capsys):
    assert run(submission, "--page", tmp_path / "new" / "b17.html") == 0
    assert (tmp_path / "new" / "b17.html").read_text() == "the page"
    assert "b17.html" in capsys.readouterr().out


def test_without_nbgrader_there_are_points_and_no_words(
    submission, fake_judge, capsys, monkeypatch
):
    from grading import __main__

    monkeypatch.setattr(__main__, "_missing", lambda *names: f"This needs {names[0]}.")
    assert run(submission) == 0
    assert "Without what the course's checks say. This needs nbgrader." in capsys.readouterr().out
    assert not fake_judge.asked[0][0].feedback
    assert run(submission, "--page", "x.html") == 2
    assert "This needs nbgrader." in capsys.readouterr().err


def test_a_real_one(submission, capsys):
    """In the sandbox, with the checks of the hand-out."""
    notebook = copy.deepcopy(nbformat.read(submission, as_version=4))
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "softmax":
            cell.source = WRONG
    nbformat.write(notebook, submission)
    assert run(submission) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0 of 2 wrong The check: " in said and "NaN" in said
    assert said.count("not done") == 3 and "total 0 of 10" in said
