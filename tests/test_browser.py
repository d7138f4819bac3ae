"""JupyterLab opens each notebook in Chromium, and Run All Cells finishes without an error.

python -m pytest -m browser tests/test_browser.py
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.browser
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
DEADLINE = 600
TOKEN = "course"


def cleared(notebook):
    """The notebook without what an earlier run has left in it."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab server on a folder with cleared copies of the notebooks: its address, folder."""
    folder, settings = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("settings")
    for name in NOTEBOOKS:
        notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
        nbformat.write(cleared(notebook), folder / name)
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = os.environ | {name: str(settings / name) for name in names}
    port = free_port()
    options = [
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
        "--no-browser",
        "--allow-root",
    ]
    command = [sys.executable, "-m", "jupyterlab", *options]
    log = settings / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=environment | {"JUPYTER_PREFER_ENV_PATH": "1"},
            stdout=output,
            stderr=output,
        ) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/api?token={TOKEN}", server, log)
            yield address, folder
        finally:
            server.terminate()


def wait_for(url, server, log):
    for _ in range(120):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"JupyterLab did not answer within a minute. {log.read_text()}")


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next((name for name in found if name), None)
    assert path, "Chromium is not installed. On Debian and Ubuntu: apt install chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


RESULT = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    const session = panel.sessionContext.session;
    const cells = panel.content.model.sharedModel.toJSON().cells
        .filter(cell => cell.cell_type === 'code');
    return {status: session && session.kernel ? session.kernel.status : 'none', cells};
}"""


def opened(browser, address, name):
    """A page with the notebook and its kernel ready, and a list that fills if the page fails."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    thrown = []
    page.on("pageerror", lambda error: thrown.append(f"the page threw {error}"))
    page.goto(f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}?token={TOKEN}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    page.wait_for_function(f"() => ({RESULT})().status === 'idle'", timeout=60_000)
    return page, thrown


def run_all(browser, address, name, seconds=DEADLINE):
    """Open a notebook, click Run > Run All Cells, wait; return what went wrong, and the page."""
    page, thrown = opened(browser, address, name)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    problems = wait_until_run(page, seconds)
    return [f"{name}: {problem}" for problem in problems + thrown], page


def wait_until_run(page, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = page.evaluate(RESULT)
        counts = [cell["execution_count"] for cell in result["cells"]]
        problems = errors(result["cells"])
        if problems or result["status"] == "dead":
            return problems or ["the kernel died"]
        if result["status"] == "idle" and None not in counts:
            expected = list(range(1, len(counts) + 1))
            return [] if counts == expected else [f"cells ran in the order {counts}"]
        page.wait_for_timeout(500)
    return [f"not finished after {seconds} s; cells run so far: {counts}"]


def errors(cells):
    return [
        f"code cell {number} raised {output['ename']}: {output['evalue']}"
        for number, cell in enumerate(cells, start=1)
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_cells_finishes_without_an_error(browser, lab, name):
    address, folder = lab
    problems, page = run_all(browser, address, name)
    if "BROWSER_SCREENSHOTS" in os.environ:
        target = Path(os.environ["BROWSER_SCREENSHOTS"]) / f"{name}.png"
        page.screenshot(path=target)
    page.close()
    assert not problems


def test_an_error_in_a_cell_is_seen(browser, lab):
    address, folder = lab
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 + 1", "1 / 0", "2 + 2")]
    metadata = nbformat.read(folder / NOTEBOOKS[0], as_version=4).metadata
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, folder / "broken.ipynb")
    problems, page = run_all(browser, address, "broken.ipynb")
    page.close()
    assert problems == ["broken.ipynb: code cell 2 raised ZeroDivisionError: division by zero"]


RUN_CELL = """async ([grade_id, source]) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    const cells = notebook.model.sharedModel.cells;
    const index = cells.findIndex(cell => cell.id === grade_id
        || (cell.getMetadata('nbgrader') || {}).grade_id === grade_id);
    if (source) cells[index].setSource(source);
    notebook.activeCellIndex = index;
    notebook.deselectAll();
    await window.jupyterapp.commands.execute('notebook:run-cell');
    await notebook.scrollToItem(index, 'start');
    return cells[index].toJSON().outputs;
}"""
WRONG_SOFTMAX = """def softmax(scores):
    return torch.exp(scores) / torch.exp(scores).sum(dim=-1, keepdim=True)"""
RIGHT_SOFTMAX = (
    "from course_utils.attention import softmax as given\n\nsoftmax = lambda x: given(x)"
)


def shown(outputs):
    parts = [o.get("text") or o.get("evalue") or o["data"]["text/plain"] for o in outputs]
    return "".join("".join(part) for part in parts)


def test_a_student_sees_hints_what_is_wrong_and_the_progress(browser, lab):
    address, folder = lab
    edition = ROOT / "notebooks" / "exercises" / "01_attention.ipynb"
    shutil.copy(edition, folder / "student.ipynb")
    page, thrown = opened(browser, address, "student.ipynb")

    def run(cell, source=None):
        return page.evaluate(RUN_CELL, [cell, source])

    first = next(c for c in nbformat.read(edition, as_version=4).cells if c.cell_type == "code")
    assert not run(first.id)
    run("softmax")
    assert "the card above says what to build" in shown(run("softmax_check"))
    page.evaluate("() => window.jupyterapp.shell.currentWidget.content.scrollToItem(14, 'end')")
    fold = page.locator("details", has_text="Three steps: subtract the maximum")
    hint, idea = fold.locator("summary"), fold.locator("p")
    assert not idea.is_visible()
    hint.click()
    assert idea.is_visible()
    assert "0 of 4 pass" in shown(run("progress"))
    run("softmax", WRONG_SOFTMAX)
    assert "subtract each row's own maximum first" in shown(run("softmax_check"))
    assert "not yet" in shown(run("progress"))
    run("softmax", RIGHT_SOFTMAX)
    assert shown(run("softmax_check")).startswith("softmax is right")
    assert "1 of 4 pass. Next is 2: the causal mask" in shown(run("progress"))
    page.close()
    assert not thrown
