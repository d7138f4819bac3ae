"""The site: what it is made from, and its pages in Chromium, wide and narrow, light and dark.

python -m pytest -m browser tests/authoring/test_site.py

With BROWSER_SCREENSHOTS=FOLDER each page is kept there as a picture, four times.
"""

import json
import os
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
import torch
from helpers import cases_for, small_model

import authoring.site.__main__ as website
from authoring.site import extract
from authoring.site.stage import ZIP, alt_texts, for_readers, links_on_top, pack, stage
from course_utils import cache_bugs
from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

WIDTHS = (1280, 390)
SCHEMES = ("dark", "light")
SOUND = ("serious", "critical")
STANDARD = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
RULES = {"light": STANDARD, "dark": ["color-contrast", "link-in-text-block"]}
BUT_COLOURS = {"color-contrast": {"enabled": False}}
SAID_BEFORE = re.compile(r"exercises/(0[235679]|10|11)_")  # axe sees their text in the worked one
A_PAGE_OF_EACH_KIND = {  # of which axe sees everything, and of others their own part, but colours
    "index.html",
    "search.html",
    "INSTRUCTORS.html",
    "course_utils/attention.html",
    "notebooks/04_kv_cache.html",
    "notebooks/going_further/08_flash_attention.html",
    "notebooks/glossary.html",
    "notebooks/exercises/04_kv_cache.html",
}


class Links(HTMLParser):
    """The ids of a page, and what it refers to: (attribute, address) pairs."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.references = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        for name in ("href", "src", "srcset", "data-src"):
            if found.get(name):
                self.references.append((tag, found[name]))


def broken_links(site):
    """Each reference of a page in the folder `site` that leads nowhere, or to a host by itself."""
    paths = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in paths}
    return [
        f"{path.relative_to(site)}: {tag} {address}"
        for path, page in pages.items()
        for tag, address in page.references
        if not leads_somewhere(path, tag, address, pages)
    ]


def leads_somewhere(path, tag, address, pages):
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return parts.scheme in ("http", "https", "mailto") and tag == "a" or parts.scheme == "data"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return False
    if not parts.fragment or target not in pages:
        return True
    return unquote(parts.fragment) in pages[target].ids


def page_names():
    """What there is to look at, without building it: one address for each source."""
    books = [path for path in (ROOT / "notebooks").rglob("*.ipynb") if path.parent.name[0] != "."]
    code = [ROOT / "course_utils" / "attention.py", ROOT / "grading" / "judge.py"]
    texts = [ROOT / name for name in ("README.md", "INSTRUCTORS.md", "data/README.md")]
    texts += [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")]
    names = [str(path.relative_to(ROOT)) for path in sorted(books) + code + texts if path.exists()]
    names += ["index", "code", "cheat_sheet", "search", "notebooks/exercises/index"]
    return [name.removesuffix(Path(name).suffix) + ".html" for name in names]


class Reader:
    """One page in Chromium, and what went wrong in it."""

    def __init__(self, browser):
        self.page = browser.new_page()
        self.page.on("console", lambda m: m.type == "error" and self.wrong.append(m.text))
        self.page.on("pageerror", lambda error: self.wrong.append(f"thrown: {error}"))
        self.page.on("request", self.requested)
        self.wrong = []

    def requested(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(f"asks for {request.url}")

    def open(self, path, query=""):
        """Open a file, wait for its formulas, and open its folds."""
        self.wrong.clear()
        self.page.set_viewport_size({"width": WIDTHS[0], "height": 1000})
        self.page.emulate_media(media="screen", color_scheme="light")
        self.page.goto(path.as_uri() + query)
        self.page.evaluate(SETTLE)
        return self.page

    def show(self, width, scheme):
        """The open page at this width and in these colours."""
        self.page.set_viewport_size({"width": width, "height": 1000})
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")

    def problems(self, width, scheme):
        """What is wrong with the open page at this width and in these colours."""
        self.show(width, scheme)
        return self.wrong + self.page.evaluate(PROBLEMS)

    def violations(self, part=None, **options):
        """What axe-core finds that keeps people out of the open page, or out of a part of it."""
        from axe_playwright_python.sync_playwright import Axe

        self.page.evaluate(EACH_COLOUR_ONCE)
        self.page.wait_for_function(REACHED)
        options = {"preload": False, "resultTypes": ["violations"], "runOnly": STANDARD} | options
        found = Axe().run(self.page, part, options).response["violations"]
        return [
            f"{rule['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
            for rule in found
            if rule["impact"] in SOUND
            for node in rule["nodes"]
        ]


REACHED = """() => [...document.querySelectorAll('pre, .pst-scrollable-table-container')].every(
    block => block.tabIndex === 0 || block.scrollWidth <= block.clientWidth)"""
EACH_COLOUR_ONCE = """() => {
    const seen = new Set();
    for (const token of document.querySelectorAll('.highlight pre > span')) {
        if (seen.has(token.className)) token.replaceWith(token.textContent);
        seen.add(token.className);
    }
}"""
SETTLE = """async () => {
    const still = document.createElement('style');
    still.textContent = '* { transition: none !important; animation: none !important; }';
    document.head.append(still);
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    document.querySelectorAll('details').forEach(fold => { fold.open = true; });
    await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
}"""
PROBLEMS = r"""() => {
    const problems = [];
    const name = element => `<${element.localName} class="${element.className}"> `
        + element.textContent.trim().slice(0, 40);
    const scrolls = style => /auto|scroll/.test(style.overflowX);
    const clips = style => style.overflowX !== 'visible';
    const wide = innerWidth;

    for (const image of document.images) {
        if (!image.naturalWidth) problems.push(`no image: ${image.src}`);
        if (!image.alt) problems.push(`no alt text: ${image.src}`);
        if (image.matches('figure img, p > img:only-child') && image.width < 700)
            problems.push(`too small to be read: ${image.src}`);
    }
    for (const frame of document.querySelectorAll('.text_html:has(.kv-watch)'))
        if (document.documentElement.dataset.theme === 'dark'
            && getComputedStyle(frame).backgroundColor !== 'rgba(0, 0, 0, 0)')
            problems.push('a pale frame around the watch');
    if (document.documentElement.scrollWidth > wide)
        problems.push(`the page is ${document.documentElement.scrollWidth} wide`);

    for (const formula of document.querySelectorAll('.math'))
        if (!formula.querySelector('mjx-container')) problems.push(`raw: ${name(formula)}`);
    for (const error of document.querySelectorAll('[data-mjx-error], mjx-merror, merror'))
        problems.push(`formula: ${error.getAttribute('data-mjx-error')}`);
    for (const text of document.querySelectorAll('article p, article li, article td')) {
        const plain = text.cloneNode(true);
        plain.querySelectorAll('code, pre, mjx-container').forEach(part => part.remove());
        if (/\$[^$]+\$|\\\(|\\frac/.test(plain.textContent)) problems.push(`raw: ${name(text)}`);
    }

    if (wide >= 1280) {
        for (const code of document.querySelectorAll('.cell_input pre, section#code pre'))
            if (code.scrollWidth > code.clientWidth) problems.push(`code scrolls: ${name(code)}`);
    }

    // The blocks that hold text themselves, each with the part of its text that is in sight.
    const blocks = [];
    for (const element of document.body.querySelectorAll('*')) {
        if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
        if (element.closest('mjx-container, svg, script, style, dialog, .visually-hidden, '
            + '.skip-link, .pst-skip-link, .pst-async-banner-revealer')) continue;
        const style = getComputedStyle(element);
        if (/^(inline|contents)$/.test(style.display)) continue;
        const own = [...element.childNodes].filter(node =>
            node.textContent.trim() && (node.nodeType === Node.TEXT_NODE
            || node.nodeType === Node.ELEMENT_NODE
               && getComputedStyle(node).display === 'inline'));
        if (!own.length) continue;
        if (clips(style) && !scrolls(style) && element.scrollWidth > element.clientWidth + 1)
            problems.push(`cut off: ${name(element)}`);
        const range = document.createRange();
        range.setStartBefore(own[0]);
        range.setEndAfter(own.at(-1));
        const all = range.getBoundingClientRect();
        const box = {left: all.left, right: all.right, top: all.top, bottom: all.bottom};
        let within = scrolls(style);
        for (let outer = element; outer !== document.body; outer = outer.parentElement) {
            const outerStyle = getComputedStyle(outer);
            if (!clips(outerStyle)) continue;
            within = true;
            const edge = outer.getBoundingClientRect();
            box.left = Math.max(box.left, edge.left);
            box.right = Math.min(box.right, edge.right);
            box.top = Math.max(box.top, edge.top);
            box.bottom = Math.min(box.bottom, edge.bottom);
        }
        if (!within && (box.right > wide + 1 || box.left < -1))
            problems.push(`out of the page: ${name(element)}`);
        if (box.right - box.left > 2 && box.bottom - box.top > 2) blocks.push([element, box]);
    }
    blocks.sort((one, other) => one[1].top - other[1].top);
    blocks.forEach(([one, box], i) => {
        for (let j = i + 1; j < blocks.length && blocks[j][1].top < box.bottom - 4; j++) {
            const [other, next] = blocks[j];
            const across = Math.min(box.right, next.right) - Math.max(box.left, next.left);
            if (across > 3 && !one.contains(other) && !other.contains(one))
                problems.push(`overlap: ${name(one)} and ${name(other)}`);
        }
    });
    return problems;
}"""


@pytest.fixture(scope="session")
def reader(browser):
    return Reader(browser)


@pytest.mark.browser
def test_nothing_else_is_left_beside_it(site):
    assert not (site.parent / "jupyter_execute").exists()


@pytest.mark.browser
def test_no_link_is_broken_and_nothing_comes_from_a_host(site):
    assert broken_links(site) == []


def test_axe_sees_a_page_of_each_kind():
    assert set(page_names()) >= A_PAGE_OF_EACH_KIND


@pytest.mark.browser
@pytest.mark.parametrize("name", page_names())
def test_a_page(name, site, reader):
    page = reader.open(site / name)
    wrong = []
    for scheme in SCHEMES:
        for width in WIDTHS:
            wrong += [f"{scheme}, {width}: {one}" for one in reader.problems(width, scheme)]
            keep_pictures(page, f"{name}-{width}-{scheme}")
    if name in A_PAGE_OF_EACH_KIND:
        for scheme in SCHEMES:
            reader.show(WIDTHS[-1], scheme)
            wrong += [f"{scheme}: {one}" for one in reader.violations(runOnly=RULES[scheme])]
    if name not in A_PAGE_OF_EACH_KIND and not SAID_BEFORE.search(name):
        wrong += reader.violations("main", rules=BUT_COLOURS)
    assert wrong == []


def keep_pictures(page, name):
    """The whole page in pictures that are short enough to be read."""
    if "BROWSER_SCREENSHOTS" not in os.environ:
        return
    folder = Path(os.environ["BROWSER_SCREENSHOTS"], "site")
    file = name.replace("/", "_").replace(".html", "")
    width, height = page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
    for number, top in enumerate(range(0, height, 1500)):
        clip = {"x": 0, "y": top, "width": width, "height": min(1500, height - top)}
        path = folder / f"{file}-{number:02}.png"
        page.screenshot(path=path, full_page=True, clip=clip)


@pytest.mark.browser
def test_search_finds_a_word_without_a_server(site, reader):
    page = reader.open(site / "search.html", "?q=prefill")
    page.wait_for_selector("#search-results li a")
    links = page.evaluate("[...document.querySelectorAll('#search-results li a')].map(a => a.href)")
    found = {Path(unquote(urlsplit(link).path)) for link in links}
    assert site / "notebooks" / "04_kv_cache.html" in found
    assert all(path.is_file() and path.parent.name != "exercises" for path in found)
    assert reader.wrong == []


@pytest.mark.browser
def test_on_paper_there_are_no_sidebars_and_folds_are_open(site, reader):
    page = reader.page
    page.set_viewport_size({"width": 794, "height": 1123})  # A4 at 96 dots per inch
    page.goto((site / "notebooks" / "04_kv_cache.html").as_uri())
    page.emulate_media(media="print", color_scheme="light")
    for hidden in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".prev-next-footer"):
        assert not page.locator(hidden).first.is_visible()
    page.evaluate("() => document.querySelector('pre').classList.add('goes-on')")
    mask = "pre => getComputedStyle(pre).maskImage"
    assert page.locator("pre").first.evaluate(mask) == "none"
    hint = page.locator("details p").first
    assert hint.evaluate("hint => hint.checkVisibility({contentVisibilityAuto: true})")
    page.emulate_media(media="screen")
    assert not hint.evaluate("hint => hint.checkVisibility({contentVisibilityAuto: true})")


ALL_WRONG = {
    "no image": "image.src = 'missing.png'",
    "no alt text": "image.alt = ''",
    "too small to be read": "image.style.maxWidth = '350px'",
    "the page is": "first.style.width = '2000px'",
    "out of the page": "first.style.marginLeft = '-500px'",
    "cut off": "first.style.cssText = 'white-space: nowrap; overflow: hidden; width: 90px'",
    "overlap": "first.nextElementSibling.style.marginTop = '-30px'",
    "raw": "first.textContent = 'so $e^x$ stays'",
    "raw: <span": "document.querySelector('.math').textContent = 'e^x'",
    "code scrolls": "document.querySelector('.cell_input pre').append('x'.repeat(104))",
    "formula": "document.querySelector('.math').innerHTML += '<mjx-merror></mjx-merror>'",
    "thrown": "setTimeout(() => { throw new Error('on purpose'); })",
    "on purpose": "console.error('on purpose')",
    "asks for http": "new Image().src = 'http://localhost:9/picture.png'",
}
ALL_SHUT_OUT = {
    "color-contrast": "first.style.color = '#ddd'",
    "image-alt": "image.removeAttribute('alt')",
    "link-name": "document.querySelector('.page-actions a').textContent = ''",
}
PARTS = """const image = document.querySelector('article img');
const first = document.querySelector('article section > p');
"""


@pytest.mark.browser
@pytest.mark.parametrize("expected", ALL_WRONG)
def test_what_is_wrong_with_a_page_is_seen(expected, site, reader):
    page = reader.open(site / "notebooks" / "01_attention.html")
    page.evaluate(f"async () => {{ {PARTS} {ALL_WRONG[expected]}; }}")
    page.evaluate("() => document.images[0].decode().catch(() => null)")
    assert any(expected in problem for problem in reader.problems(1280, "light"))


@pytest.mark.browser
@pytest.mark.parametrize("rule", ALL_SHUT_OUT)
def test_what_keeps_people_out_of_a_page_is_seen(rule, site, reader):
    page = reader.open(site / "notebooks" / "glossary.html")
    page.evaluate("() => document.querySelector('article').append(new Image())")
    page.evaluate(f"() => {{ {PARTS} {ALL_SHUT_OUT[rule]}; }}")
    assert any(violation.startswith(rule) for violation in reader.violations())


GOOD_PAGE = '<a href="other.html#here">other</a> <img src="a.png"> <a href="https://x.org">x</a>'


@pytest.mark.parametrize(
    "page, is_broken",
    [
        (GOOD_PAGE, False),
        ('<a href="nowhere.html">nowhere</a>', True),
        ('<a href="other.html#nowhere">nowhere in it</a>', True),
        ('<a href="#nowhere">nowhere here</a>', True),
        ('<img src="b.png">', True),
        ('<script src="https://cdn.example.org/a.js"></script>', True),
        ('<link href="//fonts.example.org/a.css">', True),
    ],
)
def test_a_broken_link_is_seen(page, is_broken, tmp_path):
    (tmp_path / "index.html").write_text(page)
    (tmp_path / "other.html").write_text('<p id="here">other</p>')
    (tmp_path / "a.png").write_bytes(b"")
    assert bool(broken_links(tmp_path)) == is_broken


FOLDERS = (ROOT / "notebooks", ROOT / "notebooks" / "going_further")
WORKED = sorted(path for folder in FOLDERS for path in folder.glob("[01]*.ipynb"))[1:]  # from 01 on


@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_the_map_says_how_long_each_notebook_takes(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    minutes = re.search(r"About\s+(\d+)\s+minutes", text)[1]
    title = re.match(r"# (\d\d) · (.+)", text)
    rows = extract.course_map((ROOT / "README.md").read_text(encoding="utf-8")).splitlines()
    row = next(row for row in rows if f"({path.relative_to(ROOT).as_posix()})" in row)
    assert row.startswith(f"| [{title[1]} {title[2]}](") and row.endswith(f"| {minutes} |")


def test_a_readme_without_a_map_is_an_error():
    with pytest.raises(LookupError, match="no table"):
        extract.course_map("# A course\n\n| file | what it builds |\n|---|---|\n")


def test_the_sweep_is_taken_from_its_notebook():
    picture, alt = extract.figure(
        ROOT / "notebooks" / "06_latency_sweep.ipynb", "The latency sweep"
    )
    assert picture.startswith(b"\x89PNG") and len(alt) > 100
    with pytest.raises(LookupError, match="No such figure"):
        extract.figure(ROOT / "notebooks" / "06_latency_sweep.ipynb", "No such figure")


QUESTION = "where is the red bell?"


def test_the_table_of_wrong_caches_is_taken_from_its_notebook():
    html = extract.table(ROOT / "notebooks" / "05_is_it_right.ipynb", QUESTION)
    rows = re.findall(r"<th>(\w+)</th>\s*<td>", html)
    assert rows == list(cache_bugs.CATALOGUE)
    two = extract.accessible(extract.only(html, ["stale", "mask_columns"]))
    assert re.findall(r'<th scope="row">([^<]*)<wbr>|<th scope="row">(stale)', two)
    assert two.index("stale") < two.index("mask_") and "positions" not in two
    assert "one_<wbr>layer_<wbr>for_<wbr>all" in extract.accessible(html)
    assert "<style" not in two and two.count('scope="col"') == 3
    with pytest.raises(LookupError, match="no_such_cache"):
        extract.only(html, ["no_such_cache"])
    with pytest.raises(LookupError, match="0 tables"):
        extract.table(ROOT / "notebooks" / "05_is_it_right.ipynb", "no such column")


def test_the_name_of_an_index_stands_beside_the_names_of_the_columns():
    plain = pd.DataFrame({"state": ["passes"]}, index=pd.Index(["1"], name="exercise"))
    named = plain.rename_axis(columns="of")
    deep = pd.concat({"left": plain, "right": plain}, axis=1)
    heads = [
        extract.accessible(table.to_html()).partition("</thead>")[0]
        for table in (plain, named, deep)
    ]
    titles = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", head) for head in heads]
    assert titles[0] == ["exercise", "state"]
    assert titles[1] == ["of", "state", "exercise", ""]
    assert titles[2] == ["", "left", "right", "exercise", "state", "state"]


def test_the_landing_page_counts_right():
    """How many pass the assignment's check, and that the six that are shown are among them."""
    page = (ROOT / "authoring" / "site" / "index.md").read_text(encoding="utf-8")
    reference = small_model(dtype=torch.float32)
    cases = cases_for(reference)
    passing = {
        name
        for name, bug in cache_bugs.CATALOGUE.items()
        if passes_the_assignments_check(bug.build(reference), cases)
    }
    assert f"{len(passing)} of the {len(cache_bugs.CATALOGUE)} wrong caches" in page.replace(
        "\n", " "
    )
    shown = re.search(r"```{table-of}.*?\n\n(.*?)```", page, re.S)[1].split()
    assert len(shown) == 6 and set(shown) <= passing


def passes_the_assignments_check(model, cases):
    with torch.no_grad():
        logits = [model(case.input_ids, use_cache=True)[0] for case in cases]
    return all(
        torch.allclose(found, case.with_cache, atol=1e-3)
        for found, case in zip(logits, cases, strict=True)
    )


def test_readers_see_no_marks_for_graders_and_get_alt_texts_and_links():
    text = (ROOT / "notebooks" / "04_kv_cache.ipynb").read_text(encoding="utf-8")
    assert "### BEGIN SOLUTION" in text
    readable = for_readers(text, "[Open the exercise](exercises/04_kv_cache.ipynb)")
    assert "### BEGIN" not in readable and "### END" not in readable
    cells = json.loads(readable)["cells"]
    assert "".join(cells[0]["source"]).splitlines()[2].startswith("[Open the exercise]")
    alts = [
        alt for cell in json.loads(text)["cells"] if "outputs" in cell for alt in alt_texts(cell)
    ]
    given = [
        cell["metadata"]["mystnb"]["image"]["alt"] for cell in cells if "mystnb" in cell["metadata"]
    ]
    assert alts == given and len(alts) > 3


def test_the_course_can_be_downloaded_where_git_knows_it(tmp_path):
    stage(ROOT, tmp_path)
    offered = (tmp_path / "index.md").read_text(encoding="utf-8").count("{download}")
    assert bool(offered) == (tmp_path / ZIP).exists() == (ROOT / ".git").exists()
    if offered:
        top = ZIP.removesuffix(".zip")
        names = set(zipfile.ZipFile(tmp_path / ZIP).namelist())
        assert {f"{top}/course.py", f"{top}/notebooks/exercises/04_kv_cache.ipynb"} <= names
        assert not any(name.startswith(f"{top}/.venv") for name in names)


def test_without_git_no_download_is_offered(tmp_path, monkeypatch):
    assert not pack(tmp_path, tmp_path / ZIP)
    monkeypatch.setattr("authoring.site.stage.pack", pack_nothing)
    stage(ROOT, tmp_path)
    for page in ("index.md", "notebooks/exercises/index.md"):
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert ZIP not in text and "the course's folder" in text
    assert ZIP not in links_on_top("notebooks/glossary", zipped=False)
    assert ZIP in links_on_top("notebooks/glossary", zipped=True)


def pack_nothing(root, file):
    return False


@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_no_cell_has_two_figures(path):
    """Alt text is handed over cell by cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(len(alt_texts(cell)) <= 1 for cell in cells if "outputs" in cell)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(website, "NEEDS", ("json", "no_such_package"))
    assert website.main(["--out", "nowhere"]) == 1
    message = capsys.readouterr().err
    assert message == f"The site needs no_such_package: {website.INSTALL}\n"
    assert "python3 course.py site" in message
