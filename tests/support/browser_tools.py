"""A copy of the course, JupyterLab as the README starts it, and a student in front of Chromium."""

import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat

from course_utils.transformer import ROOT

SCREENSHOTS = os.environ.get("BROWSER_SCREENSHOTS")
WHAT_IS_SEEN = """() => {
    const all = selector => [...document.querySelectorAll('.jp-NotebookPanel ' + selector)];
    const text = element => element.textContent.trim();
    const red = all('[data-mime-type="application/vnd.jupyter.stderr"]').map(text);
    const failed = red.filter(text => text.includes('Traceback (most recent call last)'));
    return {
        prompts: all('.jp-CodeCell .jp-InputPrompt').map(text),
        errors: failed,
        warnings: red.filter(text => !failed.includes(text)),
        broken: all('img').filter(img => img.complete && !img.naturalWidth).length,
        dialogs: [...document.querySelectorAll('.jp-Dialog')].map(text),
        idle: document.querySelector('.jp-StatusBar-Left').textContent.includes('| Idle'),
    };
}"""
FINISHED = f"""() => {{
    const seen = ({WHAT_IS_SEEN})();
    const ran = seen.prompts.every(prompt => /^\\[\\d+\\]:$/.test(prompt));
    return seen.errors.length || seen.dialogs.length || (ran && seen.idle);
}}"""


def cleared(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what an earlier run has left in it."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def copy_course(folder: Path) -> Path:
    """A copy of the course, 01 to 06 cleared; its .venv is this one, set up already."""
    for name in ("course.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("course_utils", "data", "benchmarks", "model_state_dict.pt"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "setup", folder / "setup")
    ignored = shutil.ignore_patterns(".ipynb_checkpoints")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=ignored)
    for path in (folder / "notebooks").glob("*.ipynb"):
        nbformat.write(cleared(nbformat.read(path, as_version=4)), path)
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "course-setup.txt":
            (folder / ".venv" / path.name).symlink_to(path)
    lists = b"".join((folder / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    stamp = "\n".join([hashlib.sha256(lists).hexdigest(), sys.version, str(folder.resolve())])
    (folder / ".venv" / "course-setup.txt").write_text(stamp, encoding="utf-8")
    return folder


class Lab:
    """`python3 course.py lab` in a terminal of its own; leaving the block presses Ctrl-C twice."""

    def __init__(self, folder: Path, settings: Path, port: int):
        self.folder, self.output, self.port = folder, "", port
        names = "CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"
        variables = {f"JUPYTER_{name}": str(settings / name) for name in names}
        variables |= {"JUPYTERLAB_WORKSPACES_DIR": str(settings), "IPYTHONDIR": str(settings)}
        variables["PIP_NO_INDEX"] = "1"  # nothing is set up anew here: that would have to fail
        self.terminal, inside = pty.openpty()
        self.server = subprocess.Popen(
            [Path(sys.base_prefix, "bin", "python3"), "course.py", "lab"]
            + ["--no-browser", "--port", str(port)],
            cwd=folder,
            env=os.environ | variables,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(inside)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        """Keep what the terminal shows. Reading fails when the last process has gone."""
        with contextlib.suppress(OSError):
            while part := os.read(self.terminal, 65536):
                self.output += part.decode(errors="replace")

    @property
    def url(self) -> str:
        """The address that the server prints. Raises AssertionError after a minute without one."""
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+/lab/\S+token=\w+", self.output):
                return found[0]
            assert self.server.poll() is None, self.output
            time.sleep(0.1)
        raise AssertionError(f"JupyterLab printed no address within a minute: {self.output}")

    def address(self, notebook: str) -> str:
        """The address of a notebook, say going_further/07_how_fast_can_it_go.ipynb."""
        base, _, token = self.url.partition("?")
        workspace = re.sub(r"\W", "-", notebook)
        return (
            f"{base.split('/lab/')[0]}/lab/workspaces/{workspace}/tree/notebooks/{notebook}?{token}"
        )

    def request(self, path: str, method: str = "GET") -> object:
        """What the server's own interface answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.url.rpartition('token=')[2]}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def close_notebooks(self) -> None:
        """End every kernel, so that none takes memory from the next notebook."""
        end = time.monotonic() + 20
        while sessions := self.request("sessions"):
            try:
                for session in sessions:
                    self.request(f"sessions/{session['id']}", "DELETE")
            except urllib.error.HTTPError:  # as long as the server restarts a dead kernel
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def press_ctrl_c_twice(self) -> int:
        """The status with which the server ends, at most 20 s later."""
        for _ in range(2):
            os.write(self.terminal, b"\x03")
            time.sleep(0.5)
        return self.server.wait(timeout=20)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.server.poll() is None:
                self.press_ctrl_c_twice()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()


def take_terminal() -> None:
    """Make standard input the terminal whose Ctrl-C reaches the new session."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Student:
    """A notebook in a page of its own, and the hands on it."""

    def __init__(self, browser: object, url: str):
        self.thrown: list[str] = []
        self.page = browser.new_page(viewport={"width": 1280, "height": 1000})
        self.page.on("pageerror", lambda error: self.thrown.append(f"the page threw {error}"))
        self.page.goto(url)
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        ready = f"() => ({WHAT_IS_SEEN})().idle"
        self.page.wait_for_function(ready, polling=100, timeout=60_000)

    def seen(self) -> dict:
        """What the page shows: prompts, errors, warnings, dialogs, and whether the kernel idles."""
        return self.page.evaluate(WHAT_IS_SEEN)

    def menu(self, *names: str) -> None:
        for name in names:
            self.page.get_by_role("menuitem", name=name, exact=True).click()

    def run_all(self, seconds: float = 600) -> list[str]:
        """Run > Run All Cells; what went wrong, in words."""
        self.menu("Run", "Run All Cells")
        return self.wait_until_run(seconds)

    def wait_until_run(self, seconds: float) -> list[str]:
        from playwright.sync_api import TimeoutError as TooLong

        late = []
        try:
            self.page.wait_for_function(FINISHED, polling=200, timeout=1000 * seconds)
        except TooLong:
            late = [f"not finished after {seconds} s: {self.seen()['prompts']}"]
        seen = self.seen()
        problems = [f"an error: {text}" for text in seen["errors"]]
        problems += [f"a warning: {text}" for text in seen["warnings"]]
        problems += [f"a dialog: {text}" for text in seen["dialogs"]]
        problems += ["a picture is broken"] * seen["broken"] + self.thrown + late
        expected = [f"[{number + 1}]:" for number in range(len(seen["prompts"]))]
        if not problems and seen["prompts"] != expected:
            problems = [f"cells ran in the order {seen['prompts']}"]
        return problems

    def cell(self, number: int) -> object:
        """The notebook's cell with this number, from 0, scrolled into sight."""
        cell = self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{number}"]')
        cell.scroll_into_view_if_needed()
        return cell

    def write(self, number: int, lines: list[str]) -> None:
        """Replace what is in a cell, typing line by line; the editor indents by itself."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        for index, line in enumerate(lines):
            if index:
                self.page.keyboard.press("Enter")
            self.page.keyboard.type(line)

    def paste(self, number: int, text: str) -> None:
        """Replace what is in a cell by a text, in one go."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def run(self, number: int) -> str:
        """Click into a cell, press Shift+Enter, wait; the text below it as the page shows it."""
        cell = self.cell(number)
        before = cell.locator(".jp-InputPrompt").text_content()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        ran = """([cell, before]) => {
            const prompt = cell.querySelector('.jp-InputPrompt').textContent;
            return prompt !== before && /\\d/.test(prompt);
        }"""
        argument = [cell.element_handle(), before]
        self.page.wait_for_function(ran, arg=argument, polling=50, timeout=60_000)
        self.page.wait_for_function(f"() => ({WHAT_IS_SEEN})().idle", polling=50)
        cell.scroll_into_view_if_needed()
        return "\n".join(cell.locator(".jp-OutputArea-output").all_inner_texts())

    def photograph(self, folder: Path, name: str) -> None:
        """The whole notebook, in pictures of 2400 pixels each, into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.page.set_viewport_size({"width": 1280, "height": 2400})
        drawn = ".jp-Cell { content-visibility: visible !important }"  # also out of sight
        self.page.add_style_tag(content=drawn)
        panel = self.page.locator(".jp-WindowedPanel-outer")
        place, number, end = 0, 0, 1
        while place < end:
            panel.evaluate(f"panel => panel.scrollTo(0, {place})")
            self.page.wait_for_timeout(100)
            panel.screenshot(path=folder / f"{name}-{number:02}.png")
            height, end = panel.evaluate("panel => [panel.clientHeight, panel.scrollHeight - 60]")
            place, number = place + height - 60, number + 1
