"""The cheat sheet: every number and line of code on it, and that it is one page on paper.

With a browser: python -m pytest -m browser tests/authoring/test_cheat_sheet.py
"""

import re

import pytest
import torch
from helpers import random_ids, small_model

from authoring.site import paper
from course_utils import attention, benchmark, cache_bugs, evaluation
from course_utils.attention import causal_mask
from course_utils.evaluation import replay, uncached
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.left_padding import LeftPaddedTransformer, left_pad
from course_utils.transformer import ROOT, load_model

pytestmark = pytest.mark.authors

SHEET = ROOT / "authoring" / "site" / "cheat_sheet.md"
STEPS = ("New", "Feed", "RollBack", "Reorder", "Uncached", "Generate", "feeds")
A4 = (595, 842)  # points
TEXT = SHEET.read_text(encoding="utf-8")
BLOCKS = dict(part.split("\n", 1) for part in TEXT.split("\n## ")[1:])


def prose(title):
    """The text of a block, without its breaks of lines."""
    return " ".join(BLOCKS[title].split())


def fence(title, language):
    """The only block of code of a language below a title."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", BLOCKS[title], re.S)
    return code


def table(title):
    """The cells of each row of a block's table, without its head."""
    rows = [line for line in BLOCKS[title].splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def value(formula, **letters):
    """What a formula comes to, as it is written on the page."""
    plain = formula.replace("·", "*").replace("−", "-").replace("bytes per number", "bytes_each")
    return eval(plain, letters)


def test_every_link_leads_to_a_notebook_of_its_number():
    links = re.findall(r"\[([^]]+)\]\(([^)]+)\)", TEXT)
    assert {name for name, _ in links} == {"notation", "01", "03", "04", "05", "06", "07"}
    for name, address in links:
        path = (SHEET.parent / address).resolve()
        assert path.is_file() and path.suffix == ".ipynb" and path.name.startswith(name)


def shapes_of_a_call(model, ids, cache, monkeypatch):
    """What goes through the first layer in one call, by the names that the table has."""
    seen, layer = {}, model.layers[0]
    weigh, attend, append = attention.attention_weights, layer.attention.attend, cache.append

    def weighing(q, k, mask):
        found = weigh(q, k, mask)
        seen["scores, weights"] = tuple(found.shape)
        assert mask.shape == found.shape[-2:]
        return found

    def attending(q, k, v):
        seen["q"] = tuple(q.shape)
        seen["k, v: attended to"] = tuple(k.shape)
        assert k.shape == v.shape
        return attend(q, k, v)

    def appending(number, k, v):
        seen["k, v: made, stored"] = tuple(k.shape)
        return append(number, k, v)

    def run(_, args, out):
        seen["x, in and out"] = tuple(out.shape)
        assert args[0].shape == out.shape

    def placed(_, args):
        seen["positions"] = args[0].flatten().tolist()

    hooks = [
        layer.register_forward_hook(run),
        model.pos_embedding.register_forward_pre_hook(placed),
    ]
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(attention, "attention_weights", weighing)
        patch.setattr(layer.attention, "attend", attending)
        patch.setattr(cache, "append", appending)
        seen["logits, at the end"] = tuple(model(ids, cache, use_cache=True)[0].shape)
    for hook in hooks:
        hook.remove()
    return seen


def test_the_shapes_are_those_of_the_model(monkeypatch):
    model, Q, B = small_model(), 5, 3
    letters = {"B": B, "Q": Q, "H": 2, "d": 8, "D": 16, "V": 50, "past": Q}
    cache, ids = PreallocatedCache(model, B), random_ids(B, Q + 1)
    calls = [shapes_of_a_call(model, new, cache, monkeypatch) for new in (ids[:, :Q], ids[:, Q:])]
    rows = {name: cells for name, *cells in table("Letters and shapes")}
    assert set(rows) == set(calls[0])
    for name, cells in rows.items():
        for cell, call in zip(cells, calls, strict=True):
            if name == "positions":
                first, _, last = cell.partition(" … ")
                ends = value(first, **letters), value(last or first, **letters)
                assert call[name] == list(range(ends[0], ends[1] + 1))
            else:
                assert call[name] == value(cell, **letters), name


def test_the_mask_is_right_for_every_chunk():
    names = {"torch": torch}
    exec(fence("The mask has an offset", "python"), names)
    for past in range(5):
        for new in range(1, 6):
            assert torch.equal(names["mask"](past, new), causal_mask(new, past + new))
        assert causal_mask(1, past + 1).all() and not causal_mask(2, past + 2).all()


def test_the_picture_of_the_mask_is_right():
    picture = fence("The mask has an offset", "text")
    past, new = map(int, re.search(r"past = (\d+), Q = (\d+)", picture).groups())
    rows = [[sign == "■" for sign in re.findall("[■·]", row)] for row in picture.splitlines()]
    assert [row for row in rows if row] == causal_mask(new, past + new).tolist()


def test_the_lines_that_use_a_cache_run_and_do_what_they_say():
    model = small_model(LeftPaddedTransformer)
    prompts, ids, n = [random_ids(1, 3)[0], random_ids(1, 6, seed=1)[0]], random_ids(2, 5), 3
    names = {"model": model, "ids": ids, "n": n, "rows": torch.tensor([1, 1, 0])}
    names |= {"prompts": prompts, "left_pad": left_pad}
    lines = fence("Using a cache", "python").splitlines()
    assert len(lines) == 7

    def run(number):
        with torch.no_grad():
            exec(lines[number], names)
        return names["cache"] if number else None

    for number in range(2):
        run(number)
    new = names["new"]
    assert new.shape == (2, 1)
    whole = torch.cat([ids, new], dim=1)
    assert run(2).length == 6
    assert torch.allclose(names["logits"], uncached(model, whole)[:, -1:])
    assert run(3).length == n
    before = names["cache"].keys[:, :, :, :n].clone()
    assert torch.equal(run(4).keys[:, :, :, :n], before[:, [1, 1, 0]])
    run(5)
    with torch.no_grad():
        logits = model(names["ids"], run(6), use_cache=True)[0]
    for row, prompt in enumerate(prompts):
        assert torch.allclose(logits[row, -len(prompt) :], uncached(model, prompt[None])[0])


def test_the_bytes_are_those_of_the_caches():
    model, text = load_model(device="cpu"), prose("The bytes")
    name, _, formula = fence("The bytes", "text").strip().partition(" = ")
    assert name == "bytes"
    for rows, tokens in ((1, 1), (3, 7)):
        cache = GrowingCache(model, rows)
        with torch.no_grad():
            model(torch.ones(rows, tokens, dtype=torch.long), cache, use_cache=True)
        assert cache.nbytes == value(formula, L=4, D=128, bytes_each=4, tokens=tokens, B=rows)
        if (rows, tokens) == (1, 1):
            assert f"{cache.nbytes} bytes a token" in text
    full = PreallocatedCache(model, 1).nbytes
    assert f"{full / 1e6:.2f} MB for all {model.max_seq_len}" in text
    gpt2 = value(formula, L=12, D=768, bytes_each=4, tokens=1, B=1)
    assert f"{gpt2 / 1024:g} KiB a token" in text


def test_the_cost_is_that_of_the_model():
    model = load_model(device="cpu")
    formula = fence("The cost", "text").strip().removeprefix("operations(Q, K) = ")
    matrices = benchmark.operations(model, 1, 0) // 2
    assert f"{matrices:,}" in prose("The cost")

    def operations(Q, K):
        return value(formula, Q=Q, K=K, P=matrices, L=4, D=128)

    for new, every in ((1, 1), (1, 1000), (7, 7), (3, 20)):
        assert operations(new, every) == benchmark.operations(model, new, every)
    for _, needs, printed in table("The cost"):
        assert f"{value(needs, operations=operations, K=1000):,}" == printed
    totals = [sum(operations(K, K) for K in range(1, n + 1)) for n in (500, 1000)]
    assert totals[1] < 2**3 * totals[0]


def scripts(room):
    """The scripts of the page, by the use that they are for."""
    names = {name: getattr(evaluation, name) for name in STEPS} | {"S": room}
    found = {}
    for use, cell in table("Scripts that prove a cache"):
        code = re.search("`(.+)`", cell)[1]
        found[use] = list(eval(code if code.startswith("feeds") else f"[{code}]", names))
    return found


def fails(model, script):
    """Whether a script that the model can play shows that its cache is wrong."""
    padded = any(getattr(step, "padding", ()) for step in script)
    if padded and not hasattr(model, "padded_cache"):
        return False
    return replay(model, script).problem is not None


def test_the_right_cache_passes_every_script():
    model = small_model(LeftPaddedTransformer)
    for use, script in scripts(model.max_seq_len).items():
        assert not fails(model, script), use


def test_the_scripts_see_as_many_wrong_caches_as_the_page_says():
    reference = small_model()
    played = scripts(reference.max_seq_len)
    built = {name: bug.build(reference) for name, bug in cache_bugs.CATALOGUE.items()}
    shown_by = {
        name: next((use for use in played if fails(model, played[use])), None)
        for name, model in built.items()
    }
    seen = [name for name, use in shown_by.items() if use]
    text = prose("Scripts that prove a cache")
    assert len(played) == 12 and f"these twelve see {len(seen)} of the {len(built)}" in text
    for use in set(played) - set(shown_by.values()):
        assert any(fails(built[name], played[use]) for name in seen), f"{use} shows nothing"


def test_what_passes_an_empty_cache_is_counted_as_on_the_landing_page():
    landing = " ".join((SHEET.parent / "index.md").read_text(encoding="utf-8").split())
    passing, known = re.search(r"(\d+) of the (\d+) wrong caches", landing).groups()
    text = prose("Scripts that prove a cache")
    assert f"{passing} of the course's {known} wrong caches pass" in text
    assert f"sees all {known}" in text and len(cache_bugs.CATALOGUE) == int(known)


@pytest.mark.parametrize("browsers", [(), ("no-such-browser",), ("false",)])
def test_without_a_browser_there_is_no_pdf_and_no_link(browsers, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "BROWSERS", browsers)
    page = tmp_path / paper.SHEET
    page.write_text("<h1>Cheat sheet</h1>", encoding="utf-8")
    assert not paper.add_pdf(tmp_path)
    assert page.read_text(encoding="utf-8") == "<h1>Cheat sheet</h1>"
    assert list(tmp_path.iterdir()) == [page]


def number_of_pages(pdf):
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.mark.browser
def test_the_pdf_is_one_page_of_a4_and_linked(site):
    pdf = (site / paper.PDF).read_bytes()
    assert number_of_pages(pdf) == 1
    box = re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pdf).groups()
    assert all(abs(float(side) - want) < 1 for side, want in zip(box, A4, strict=True))
    assert b"/URI" not in pdf
    assert f'href="{paper.PDF}"' in (site / paper.SHEET).read_text(encoding="utf-8")
    assert not list(site.glob("*.paper.html"))


SMALLEST = """() => Math.min(...[...document.querySelectorAll('.sheet, .sheet *')]
    .filter(part => part.checkVisibility()
        && [...part.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
    .map(part => parseFloat(getComputedStyle(part).fontSize) * 72 / 96))"""
PRINTED = """() => [...document.body.querySelectorAll('h1, h2, a, button, input, p, li')]
    .filter(part => part.checkVisibility() && !part.closest('.sheet'))
    .map(part => part.textContent.trim()).filter(text => text)"""
NAVIGATION = ".bd-sidebar-primary, .bd-sidebar-secondary, .prev-next-footer, .page-actions"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_prints_as_one_page_too(scheme, site, browser):
    page = browser.new_page(color_scheme=scheme)
    page.goto((site / paper.SHEET).as_uri())
    page.emulate_media(media="print")
    assert page.evaluate(SMALLEST) >= 8
    assert page.evaluate(PRINTED) == []
    assert not any(part.is_visible() for part in page.locator(NAVIGATION).all())
    assert number_of_pages(page.pdf(prefer_css_page_size=True)) == 1
    page.evaluate("() => document.querySelector('.sheet').append('more '.repeat(2000))")
    assert number_of_pages(page.pdf(prefer_css_page_size=True)) > 1
    page.close()
