"""A page about the class, without names: what was solved, and which mistakes the checks named.

It is made of plain HTML and can be shown in class. What checks have said comes from students'
kernels and may be any text: on the page it is a line of text.
"""

import html
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable

from .feedback import NOTHING_RUNS
from .graft import exercises, master
from .judge import RIGHT, WRONG, Judged

LONGEST = 200  # characters of what a check said
MOST = 5  # mistakes of an exercise
ESCAPE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*|\x1b.?")
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|inf|nan)(?!\w)")
NUMBERS = re.compile(r"[\[(]*#(?:[\s,\[\]()]+#)*[\])]*")
STYLE = """
:root { --page: #f4f3ef; --card: #fff; --ink: #22262b; --soft: #5c636b; --line: #dddad2;
  --right: #055f36; --tried: #e9a17c; --empty: #e6e3db; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --card: #1f2226; --ink: #e8e6e1;
  --soft: #a3a9b0; --line: #34383e; --right: #4fb98a; --tried: #a8593a; --empty: #34383e; } }
* { box-sizing: border-box; margin: 0; padding: 0; }
body { background: var(--page); color: var(--ink); padding: 2.5rem 1rem 3rem;
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
header, main, footer { max-width: 44rem; margin: 0 auto; }
h1 { font-size: 2rem; line-height: 1.2; margin-bottom: .6rem; }
h2 { font-size: 1.15rem; line-height: 1.35; }
h3 { font-size: .85rem; color: var(--soft); margin-top: 1.1rem; }
ul, ol { list-style: none; }
b { font-variant-numeric: tabular-nums; }
.course, .time, .unread, .silent, footer { color: var(--soft); font-size: .88rem; }
.unread, .silent { margin-top: .5rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1.2rem 1.4rem; margin-top: 1.2rem; }
.count { margin-top: .3rem; }
.count b { font-size: 1.6rem; color: var(--right); }
.bar { display: flex; height: .7rem; margin: .35rem 0 .6rem; border-radius: .35rem;
  overflow: hidden; background: var(--empty); }
.right { background: var(--right); }
.tried { background: var(--tried); }
.others li { display: inline-block; margin-right: 1.1rem; }
.others li::before { content: ""; display: inline-block; width: .65em; height: .65em;
  border-radius: 50%; margin-right: .45em; border: 1px solid var(--soft); }
.others li.tried { background: none; }
.others li.tried::before { background: var(--tried); border: 0; }
ol li { display: flex; gap: .9rem; padding: .45rem 0; border-bottom: 1px solid var(--line); }
ol li:last-child { border: 0; }
ol b { flex: 0 0 1.8rem; }
ol span { flex: 1; min-width: 0; overflow: hidden; unicode-bidi: isolate; }
q { font: .85rem/1.55 ui-monospace, "DejaVu Sans Mono", monospace; quotes: none; }
.time { margin-top: .9rem; }
footer { margin-top: 1.6rem; }
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: the class</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="course">KV Cache from Scratch</p>
<h1>{title}</h1>
{top}
</header>
<main>
{sections}
</main>
<footer>
<p><b>Right</b> is an answer that was right on inputs nobody had seen, with the course's answers to
the exercises before it. What is <b>quoted</b> is what the course's checks said when the students'
own notebooks were run; texts that differ only in their numbers count as one. <b>Times</b> are
those of one run of the answer on the machine that graded, all its inputs together:
neither how long somebody worked, nor how fast the code is.</p>
</footer>
</body>
</html>
"""


def plain(text: str, longest: int = LONGEST) -> str:
    """A text in one line, without what steers a terminal or a page, of at most this length."""
    text = ESCAPE.sub("", text[: 20 * longest])
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def page(notebook: str, found: list[Judged | str]) -> str:
    """The page, in HTML. Of each submission: what was judged, or why there was nothing to judge."""
    judged = [one for one in found if isinstance(one, Judged)]
    unread = Counter(_without_names(one) for one in found if isinstance(one, str))
    title = _text(master(notebook).cells[0].source.splitlines()[0].removeprefix("# "))
    sections = [_section(name, e.title, judged) for name, e in exercises(notebook).items()]
    return PAGE.format(
        policy=NOTHING_RUNS,
        title=title,
        style=STYLE,
        top=_top(judged, unread),
        sections="\n".join(sections),
    )


def _top(judged: list[Judged], unread: Counter[str]) -> str:
    """How many there are, how many have everything, and what could not be judged."""
    done = sum(set(one.statuses.values()) == {RIGHT} for one in judged)
    lines = [f"<p><b>{_many(len(judged))}</b>, {_of(done, len(judged))} with everything right.</p>"]
    if unread:
        reasons = ", ".join(f"{why} ({count})" for why, count in _ordered(unread))
        lines.append(
            f'<p class="unread">{_many(unread.total())} could not be judged, and '
            f"{'is' if unread.total() == 1 else 'are'} not counted here: {_text(reasons)}.</p>"
        )
    return "\n".join(lines)


def _section(name: str, title: str, judged: list[Judged]) -> str:
    """One exercise: who has it right, what became of the others, their mistakes, the times."""
    counts = Counter(one.statuses[name] for one in judged)
    right = counts.pop(RIGHT, 0)
    ran = sum(name in one.seconds and one.statuses[name] != RIGHT for one in judged)
    parts = [
        f"<h2>{_text(title)}</h2>",
        f'<p class="count"><b>{right}</b> of {len(judged)} right</p>',
        _bar(right, ran, len(judged)),
    ]
    others = [_other(status, count, name, judged) for status, count in _ordered(counts)]
    if others:
        parts.append(f'<ul class="others">{"".join(others)}</ul>')
    parts += _mistakes(name, judged)
    seconds = [one.seconds[name] for one in judged if one.seconds.get(name)]
    if seconds:
        half, longest = _seconds(statistics.median(seconds)), _seconds(max(seconds))
        parts.append(f'<p class="time">Time to run it: {half} (median), {longest} (longest).</p>')
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _other(status: str, count: int, name: str, judged: list[Judged]) -> str:
    """How many have this status, marked with the colour that they have in the bar."""
    ran = any(one.statuses[name] == status and name in one.seconds for one in judged)
    kind = ' class="tried"' if ran else ""
    return f"<li{kind}><b>{count}</b> {_text(status)}</li>"


def _bar(right: int, ran: int, all_of_them: int) -> str:
    """How many are right, and how many others were run, as parts of a bar."""
    widths = [100 * part / max(1, all_of_them) for part in (right, ran)]
    parts = zip(("right", "tried"), widths, strict=True)
    inside = "".join(f'<i class="{kind}" style="width:{width:.2f}%"></i>' for kind, width in parts)
    return f'<div class="bar" aria-hidden="true">{inside}</div>'


def _mistakes(name: str, judged: list[Judged]) -> list[str]:
    """What the checks said most often of answers that are not right."""
    wrong = [one for one in judged if one.statuses[name] == WRONG]
    said = [plain(one.said[name]) or "…" for one in wrong if one.said.get(name)]
    content = sum(one.said.get(name) == "" for one in wrong)
    silent = sum(name not in one.said for one in wrong)
    groups = grouped(said)
    lines = [_mistake(count, f"<q>{_text(text)}</q>") for text, count in groups[:MOST]]
    rest = sum(count for _, count in groups[MOST:])
    if rest:
        lines.append(_mistake(rest, "something else"))
    if content:
        lines.append(_mistake(content, "nothing: only the inputs of the grading found a mistake"))
    parts = ["<h3>What the check said</h3>", f"<ol>{''.join(lines)}</ol>"] if lines else []
    if silent:
        one = "1 wrong answer was" if silent == 1 else f"{silent} wrong answers were"
        parts.append(f'<p class="silent">{one} graded without feedback: no check was asked.</p>')
    return parts


def _mistake(count: int, what: str) -> str:
    return f'<li><b>{count}</b><span dir="auto">{what}</span></li>'


def grouped(texts: Iterable[str]) -> list[tuple[str, int]]:
    """Texts that differ in numbers only, as one of them and how many; the most frequent first."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        groups[NUMBERS.sub("#", NUMBER.sub("#", text))][text] += 1
    found = {_ordered(group)[0][0]: group.total() for group in groups.values()}
    return _ordered(found)


def _ordered(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _without_names(problem: str) -> str:
    """Why a submission was not judged, without its details, in which there are names of files."""
    if "not a notebook (" in problem:
        return "is not a notebook"
    return re.split(r"[:(]", problem)[0].strip().removeprefix("the file ")


def _text(text: str) -> str:
    return html.escape(plain(text, 10 * LONGEST))


def _many(number: int) -> str:
    return "1 submission" if number == 1 else f"{number} submissions"


def _of(number: int, whole: int) -> str:
    return "all" if number == whole > 1 else f"{number}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
