"""The watch on a page: one piece of HTML that asks for nothing, and in Chromium does what it says.

python -m pytest -m browser tests/course_utils/watch/test_watch_page.py
"""

import base64
import re
from html.parser import HTMLParser

import pytest

EMPTY = {"input", "br"}
TAKES = ("light", "dark")
PAGE = """<!doctype html><html data-theme="light" lang="en"><head><meta charset="utf-8">
<title>t</title><meta name="viewport" content="width=device-width, initial-scale=1">
<style>html[data-theme="dark"] {{ background: #121212; color: #eee }}</style></head>
<body><main><h1>t</h1>{}</main></body></html>"""


class WellFormed(HTMLParser):
    """Raises AssertionError where a tag is not closed in its order; keeps ids and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.attributes = [], [], set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id"]
        self.attributes |= {name for name, _ in attributes}
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="package")
def bundle(watched):
    return watched._repr_mimebundle_()


@pytest.fixture(scope="package")
def html(bundle):
    return bundle[0]["text/html"]


def test_it_is_well_formed_has_no_ids_that_could_meet_others_and_asks_for_nothing(html):
    page = WellFormed(html)
    assert page.ids == []
    assert not page.attributes & {"src", "href", "srcset", "onclick", "onload"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|import\(", html)


def test_what_is_not_well_formed_is_seen():
    with pytest.raises(AssertionError):
        WellFormed("<div><p></div></p>")


def test_a_word_with_a_bracket_does_not_end_the_script(html):
    assert html.count("</script>") == 1 and "\\u003cstory>" in html


def test_there_is_a_picture_with_words_for_it_and_text(bundle):
    data, metadata = bundle
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    alt = metadata["image/png"]["alt"]
    assert "patient 2: wrong from call 3 (is) on" in alt and "healthy: right in every call" in alt
    assert data["text/plain"].count("\n") == 3 * 6 + 4


@pytest.fixture
def opened(browser, html, tmp_path):
    """A page with the watch twice, in Chromium; it must ask for nothing and throw nothing."""
    file = tmp_path / "page.html"
    file.write_text(PAGE.format(html + html), encoding="utf-8")
    page, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert wrong == []


def says(root):
    return root.locator(".kv-says").inner_text()


def cells(root, kind):
    """How many cells of a kind are in the cache's half of the picture."""
    return root.locator(f".kv-row > .kv-cells:nth-child(2) i.{kind}").count()


@pytest.mark.browser
def test_the_buttons_step_to_the_end_and_back_and_play(opened):
    first, second = opened.locator(".kv-watch").all()
    back, step, play = first.locator("button").all()
    assert back.is_disabled() and says(first).startswith("Call 1 of 6. The prompt goes in: 17")
    assert cells(first, "w") == 17 * 8 and cells(first, "r") == 0
    for number in range(2, 7):
        step.click()
        assert says(first).startswith(f"Call {number} of 6. In goes")
    assert step.is_disabled() and cells(first, "w") == 8 and cells(first, "r") == 22 * 8
    back.click()
    assert says(first).startswith("Call 5 of 6") and not step.is_disabled()
    assert says(second).startswith("Call 1 of 6")
    play.click()
    assert says(first).startswith("Call 6 of 6") and play.inner_text() == "Play"
    play.click()
    assert says(first).startswith("Call 1 of 6") and play.inner_text() == "Pause"
    opened.wait_for_timeout(1800)
    assert says(first).startswith("Call 2 of 6")
    play.click()
    assert play.inner_text() == "Play"
    opened.wait_for_timeout(1800)
    assert says(first).startswith("Call 2 of 6")


@pytest.mark.browser
def test_the_keyboard_reaches_all_of_it(opened):
    press = opened.keyboard.press
    press("Tab")  # Back is not to be reached: there is nothing before the first call
    press("Enter")
    root = opened.locator(".kv-watch").first
    assert says(root).startswith("Call 2 of 6")
    for _ in range(4):
        press("Tab")
    assert opened.evaluate("document.activeElement.type") == "range"
    press("ArrowRight")
    assert says(root).startswith("Call 3 of 6")
    assert root.locator("input").get_attribute("aria-valuetext") == "call 3 of 6"
    press("End")
    assert says(root).startswith("Call 6 of 6")
    press("Home")
    assert says(root).startswith("Call 1 of 6")


FAULTS = {
    "patient 1": (1, {"bad": 6, "gone": 0, "x": 0}),
    "patient 2": (2, {"bad": 6, "gone": 8, "x": 0}),
    "patient 3": (0, {"bad": 17 * 8, "gone": 0, "x": 7 * 8}),
    "patient 4": (3, {"bad": 10, "gone": 0, "x": 0}),
}


@pytest.mark.browser
@pytest.mark.parametrize("name", FAULTS)
def test_a_patient_shows_its_fault_and_the_first_wrong_call_is_marked(name, opened):
    first, marked = FAULTS[name]
    root = opened.locator(".kv-watch").first
    root.locator("select").first.select_option(label=name)
    marks = root.locator(".kv-marks span")
    signs = [text.startswith("✗") for text in marks.all_inner_texts()]
    assert signs == [number == first for number in range(6)]
    root.locator("input").fill(str(first))
    assert "Wrong for the first time" in says(root)
    assert {kind: cells(root, kind) for kind in marked} == marked
    root.locator("select").first.select_option(label="healthy")
    assert "Wrong" not in says(root) and cells(root, "bad") == 0


@pytest.mark.browser
def test_the_looks_are_those_of_the_chosen_layer(opened):
    root = opened.locator(".kv-watch").first
    root.locator("input").fill("4")
    row = root.locator(".kv-row").filter(has_text="box").first
    assert "0.96" in row.inner_text()
    root.locator("select").last.select_option(label="layer 1")
    assert "0.96" not in row.inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", TAKES)
@pytest.mark.parametrize("width", [390, 700])
def test_nothing_is_cut_off_and_axe_finds_nothing(width, scheme, opened):
    from axe_playwright_python.sync_playwright import Axe

    opened.set_viewport_size({"width": width, "height": 900})
    opened.evaluate(f"document.documentElement.dataset.theme = '{scheme}'")
    root = opened.locator(".kv-watch").first
    for name in ("healthy", *FAULTS):
        root.locator("select").first.select_option(label=name)
        for number in range(6):
            root.locator("input").fill(str(number))
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
            cut = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
            assert root.locator(".kv-row span, button").evaluate_all(cut) == []
    found = Axe().run(opened).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []


@pytest.mark.browser
def test_without_a_script_there_is_text_and_nothing_that_does_not_work(browser, html):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.set_content(html)
    assert page.locator("pre").is_visible()
    assert page.locator("button, select, input").count() == 0
    page.context.close()


@pytest.mark.browser
def test_jupyterlab_leaves_the_keys_to_each_control(opened):
    keys = "[...document.querySelectorAll('.kv-watch :is(button, select, input, summary)')].every("
    assert opened.evaluate(f"{keys}control => control.hasAttribute('data-lm-suppress-shortcuts'))")


@pytest.mark.browser
def test_on_paper_there_are_all_calls_as_stills(opened):
    opened.emulate_media(media="print")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    root = opened.locator(".kv-watch").first
    stills = root.locator(".kv-still")
    assert stills.count() == 6 and stills.first.is_visible()
    assert not root.locator("button").first.is_visible() and not root.locator("pre").is_visible()
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert stills.count() == 0
