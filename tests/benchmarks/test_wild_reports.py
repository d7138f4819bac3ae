"""The programs that show wrong caches of the library, and the table of causes that names them."""

import re
import runpy

import pandas as pd
import pytest

from benchmarks import wild as survey
from course_utils.going_further.wild.installed import library
from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

REPORTS = sorted((ROOT / "benchmarks" / "wild_reports").glob("*.py"))
IN_THE_SUITE = ("moshi", "rwkv")
KINDS = {"wrong cache", "wrong generate", "rounding", "not offered", "property"}
NAMES = ["type", "cache"]


def every_report() -> list[object]:
    thorough = pytest.mark.thorough
    return [
        pytest.param(path, id=path.stem, marks=() if path.stem in IN_THE_SUITE else thorough)
        for path in REPORTS
    ]


@pytest.mark.parametrize("path", every_report())
def test_a_report_shows_what_it_says(path, capsys):
    seen_with = re.search(r"Seen with transformers (\d+\.\d+\.\d+)", path.read_text())[1]
    if library().__version__ != seen_with:
        pytest.skip(f"it was seen with transformers {seen_with}")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert int(ended.value.code) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(survey.TABLE)


@pytest.fixture(scope="module")
def causes():
    return pd.read_csv(survey.TABLE.with_name("wild_causes.csv")).fillna("")


def pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return sorted(rows[NAMES].itertuples(index=False, name=None))


def test_each_row_that_is_not_right_has_a_cause(table, causes):
    assert pairs(causes) == pairs(table[table["verdict"] != "right"])


def test_each_cause_is_of_a_kind_and_in_words(causes):
    assert set(causes["kind"]) <= KINDS
    assert causes["cause"].str.endswith(".").all()
    known = causes["known"][causes["known"] != ""]
    assert known.str.startswith("https://github.com/").all()


def test_wrong_caches_have_a_report_and_each_report_a_type(causes):
    named = set(causes["report"]) - {""}
    assert named <= {path.name for path in REPORTS}
    assert (causes["report"][causes["kind"].str.startswith("wrong")] != "").all()
    without_a_row = {"quantized_rollback.py"}
    assert {path.name for path in REPORTS} - named <= without_a_row


def test_the_table_has_the_columns_of_the_survey(table):
    assert list(table.columns) == survey.COLUMNS
    assert not table.duplicated(NAMES).any()
