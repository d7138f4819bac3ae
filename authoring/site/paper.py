"""The cheat sheet on paper: its page as a PDF, printed by Chromium where there is one."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

SHEET, PDF = "cheat_sheet.html", "cheat_sheet.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer")
LINK = f'<div class="page-actions"><p><a href="{PDF}">Print it: one page, A4 (PDF)</a></p></div>'
ADDRESS = re.compile(r'(<a\b[^>]*?) href="[^"]*"')
SECONDS = 120


def add_pdf(pages: Path) -> bool:
    """Print the sheet in the folder `pages` of a finished site, and link the PDF from it.

    Returns False, and leaves the page as it was, where no browser prints it.
    """
    sheet = pages / SHEET
    text = sheet.read_text(encoding="utf-8")
    if not print_page(text, pages / PDF):
        return False
    before, title, after = text.rpartition("</h1>")
    sheet.write_text(f"{before}{title}\n{LINK}{after}", encoding="utf-8")
    return True


def print_page(text: str, pdf: Path) -> bool:
    """Print a page of the folder of `pdf`, without its links, which lead nowhere on paper."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return False
    copy = pdf.with_suffix(".paper.html")
    copy.write_text(ADDRESS.sub(r"\1", text), encoding="utf-8")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *OPTIONS, f"--user-data-dir={profile}", f"--print-to-pdf={pdf}"]
        try:
            subprocess.run([*command, copy.as_uri()], capture_output=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            pdf.unlink(missing_ok=True)
    copy.unlink()
    return pdf.exists()
