"""The page about the class: what it counts, what it leaves out, and that no text can break it."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

pytestmark = pytest.mark.instructor
NASTY = ["</q>", "</style>", "<script>alert(1)</script>", "<!--", "&#60;b&#62;", "&", '"', "'"]
NASTY += ["{policy}", "{0}", "\x00", "\x1b[2J", "\u202e", "\ud800", "\n", "]]>", "<"]
ANY_TEXT = st.lists(st.sampled_from(NASTY) | st.text(st.characters(), max_size=5)).map("".join)


class Read(HTMLParser):
    """The tags of a page with their attributes, and its texts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *attributes))

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_comment(self, data):
        self.tags.append("a comment")

    def handle_data(self, data):
        self.texts.append(data)


def page(*found):
    from grading.summary import page

    return page("01", list(found))


def one(status="right", said=None, seconds=2.0):
    """A submission: the status of exercise 1, and what its check said; the others are not done."""
    from grading.graft import exercises
    from grading.judge import Judged

    statuses = dict.fromkeys(exercises("01"), "not done") | {"softmax": status}
    ran = {} if seconds is None else {"softmax": seconds}
    return Judged(statuses, {} if said is None else {"softmax": said}, ran)


def first(made):
    """The section of exercise 1, as one line of text."""
    return " ".join(" ".join(Read(made.split("<section>")[1]).texts).split())


def test_it_counts_who_is_right_and_what_became_of_the_others():
    others = [one("wrong", "x"), one("wrong", "x"), one("time was up"), one("not done", None, None)]
    made = page(one(), one(), one(), *others)
    assert "1: the softmax that does not overflow 3 of 7 right" in first(made)
    assert "2 wrong 1 not done 1 time was up" in first(made)
    assert re.findall(r'<i class="(\w+)" style="width:([\d.]+)%', made)[:2] == [
        ("right", "42.86"),
        ("tried", "42.86"),
    ]
    assert re.findall(r'<li class="tried"><b>\d</b> ([\w ]+)', made) == ["wrong", "time was up"]


def test_texts_that_differ_in_numbers_only_are_one():
    from grading.summary import grouped

    same = ["softmax([[1, -inf], [2, 3]]) is [0.5, nan], expected [1e-05, 0.5]"] * 2
    same += ["softmax([[-7.25]]) is 1, expected 0"]
    assert grouped([*same, "is None"]) == [(same[0], 3), ("is None", 1)]
    assert grouped(["shape (2, 3)", "shape (1, 2, 3)"]) == [("shape (1, 2, 3)", 2)]
    assert len(grouped(["has dtype torch.float32", "has dtype torch.float64"])) == 2
    assert len(grouped(["x2 is wrong", "x3 is wrong"])) == 2


def test_it_shows_the_five_mistakes_that_were_named_most_often():
    mistakes = {name: 9 - number for number, name in enumerate("abcdefg")}
    found = [one("wrong", f"mistake {name}") for name, n in mistakes.items() for _ in range(n)]
    said = first(page(*found)).split("What the check said ")[1]
    most = " ".join(f"{number} mistake {name}" for name, number in list(mistakes.items())[:5])
    assert said.startswith(f"{most} 7 something else")


def test_only_wrong_answers_are_asked_for_their_mistakes():
    made = page(one("right", "said of a right one"), one("time was up", "said in time"))
    assert "said" not in first(made)
    assert "1 nothing: only the inputs of the grading found a mistake" in first(
        page(one("wrong", ""))
    )


def test_it_says_whose_checks_were_not_asked():
    assert "2 wrong answers were graded without feedback" in first(page(one("wrong"), one("wrong")))
    assert "1 wrong answer was graded without" in first(page(one("wrong"), one("wrong", "x")))
    assert "without feedback" not in page(one("wrong", "x"), one("time was up"), one())


def test_it_says_how_long_it_took():
    made = page(one(seconds=1), one(seconds=2.34), one(seconds=20.1), one("missing", None, None))
    assert first(made).endswith("Time to run it: 2.3 s (median), 20 s (longest).")
    assert "neither how long somebody worked" in " ".join(made.split())


def test_what_was_not_judged_is_counted_and_names_nobody():
    problems = ["the file is empty"] * 2 + [
        "holds more than one notebook 01: 01_Ada.ipynb, 01_Ada (1).ipynb",
        "is .Ada, not a notebook (.ipynb): unpack it first",
        "is .A:(da, not a notebook (.ipynb): unpack it first",
        "could not be graded ([Errno 5] Input/output error: 'Ada.ipynb')",
        "the file cannot be read (Ada)",
    ]
    made = page(one(), *problems)
    assert "7 submissions could not be judged, and are not counted here: " in made
    reasons = "is empty (2), is not a notebook (2), cannot be read (1), could not be graded (1), "
    assert reasons + "holds more than one notebook 01 (1)." in made
    assert "da" not in made.split('class="unread"')[1].split("</p>")[0]
    assert "1 of 1 right" in first(made)


def test_a_class_of_nobody_has_a_page():
    assert "0 of 0 right" in first(page("the file is empty"))


@given(ANY_TEXT)
@example("<script>alert(1)</script>")
@example("{policy}")
def test_no_text_can_break_the_page(text):
    from grading.summary import plain

    assume(text not in ("right", "wrong"))
    quoted, status = page(one("wrong", text or "x")), page(one(text))
    unread = page(one(), text + " ")
    for made, harmless in (
        (quoted, page(one("wrong", "x"))),
        (status, page(one("x"))),
        (unread, page(one(), "x")),
    ):
        assert Read(made).tags == Read(harmless).tags
        assert made.encode("utf-8")
    assert plain(text) in first(quoted) or not plain(text)
    assert len(plain(text)) <= 200


def test_nothing_on_it_runs_and_nothing_is_fetched():
    made = page(one("wrong", "<script src='http://x'>"), one())
    tags = [tag for tag in Read(made).tags if not isinstance(tag, str)]
    assert "default-src 'none'" in made
    assert not {name for name, *_ in tags} & {"script", "link", "img", "iframe", "a"}
    assert not [1 for _, *attributes in tags for key, _ in attributes if key in ("src", "href")]


def test_a_line_steers_no_terminal():
    from grading.summary import plain

    assert plain("a\x1b[31mred\x1b[0m\x1b]0;title\x07 b\x9b2Jc\r\nd\u202ee\x00") == "ared bc d e"
    assert plain("x" * 300) == "x" * 199 + "…"
    assert plain("\x1b" * 10**6) == "" and plain("\ud800") == ""
