"""The site: what it is made from, and its pages in Chromium, wide and narrow, light and dark.

python -m pytest -m browser tests/test_site.py

With BROWSER_SCREENSHOTS=FOLDER each page is kept there as a picture, four times.
"""

import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from course_utils.transformer import ROOT

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
SOUND = ("serious", "critical")


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
    names += ["index", "code", "search", "notebooks/exercises/index"]
    return [name.removesuffix(Path(name).suffix) + ".html" for name in names]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of a site that was just built, with warnings as errors."""
    pytest.importorskip("sphinx")
    from website.__main__ import build

    folder = tmp_path_factory.mktemp("site")
    assert build(site=folder) == 0
    return folder.resolve()


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
        self.page.emulate_media(media="screen", color_scheme=SCHEMES[0])
        self.page.goto(path.as_uri() + query)
        self.page.evaluate(SETTLE)
        return self.page

    def problems(self, width, scheme):
        """What is wrong with the open page at this width and in these colours."""
        self.page.set_viewport_size({"width": width, "height": 1000})
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
        return self.wrong + self.page.evaluate(PROBLEMS)

    def violations(self, all_rules=True):
        """What axe-core finds that keeps people out of the open page, in its present colours."""
        from axe_playwright_python.sync_playwright import Axe

        self.page.evaluate(EACH_COLOUR_ONCE)
        options = {"preload": False, "resultTypes": ["violations"]}
        if not all_rules:
            options["runOnly"] = ["color-contrast", "link-in-text-block"]
        found = Axe().run(self.page, options=options).response["violations"]
        return [
            f"{rule['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
            for rule in found
            if rule["impact"] in SOUND
            for node in rule["nodes"]
        ]


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
    }
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
def reader():
    playwright = pytest.importorskip("playwright.sync_api")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next((name for name in found if name), None)
    assert path, "Chromium is not installed. On Debian and Ubuntu: apt install chromium"
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield Reader(chromium)
        chromium.close()


@pytest.mark.browser
def test_no_link_is_broken_and_nothing_comes_from_a_host(site):
    assert broken_links(site) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", page_names())
def test_a_page(name, site, reader):
    page = reader.open(site / name)
    wrong = []
    for scheme in SCHEMES:
        for width in WIDTHS:
            wrong += [f"{scheme}, {width}: {one}" for one in reader.problems(width, scheme)]
            keep_picture(page, f"{name}-{width}-{scheme}")
        wrong += [f"{scheme}: {one}" for one in reader.violations(scheme == SCHEMES[0])]
    assert wrong == []


def keep_picture(page, name):
    if "BROWSER_SCREENSHOTS" in os.environ:
        folder = Path(os.environ["BROWSER_SCREENSHOTS"], "site")
        file = name.replace("/", "_").replace(".html", "") + ".jpg"
        page.screenshot(path=folder / file, full_page=True, type="jpeg", quality=70)
