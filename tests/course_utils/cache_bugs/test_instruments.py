"""What the probes, the table of symptoms and the picture show of a wrong cache."""

import re

import nbformat
import pytest
import torch
from helpers import random_ids

from course_utils.cache_bugs import CATALOGUE, looks, probes, survey, symptoms
from course_utils.transformer import ROOT, attention_maps

pytestmark = pytest.mark.authors

UNSEEN = {
    "two_caches_only",
    "prefix_without_its_beginning",
    "write_slides_back",
    "rollback_of_the_first_row",
    "rollback_works_once",
    "never_reordered",
    "values_not_reordered",
    "padding_not_reordered",
    "fifth_row_is_the_first",
    "generate_keeps_its_cache",
    "likeliest_fed_back",
}


def test_notebook_05_says_what_each_probe_feeds():
    notebook = nbformat.read(ROOT / "notebooks" / "05_is_it_right.ipynb", as_version=4)
    (table,) = re.findall(
        r"^\| script \|.*\n\|---\|---\|\n((?:\|.*\n)+)",
        "\n".join(cell.source for cell in notebook.cells),
        re.M,
    )
    ways = [line.split("|")[1].strip() for line in table.splitlines()]
    assert ways == list(probes(24))


def test_symptoms_say_from_where_on_it_is_wrong(reference):
    table = symptoms(CATALOGUE["stale"].build(reference))["the logits"]
    assert table["at once"] == "right"
    assert table["one by one"].startswith("wrong from position 7 on")
    assert table["one by one from the start"].startswith("wrong from position 2 on")
    leaking = symptoms(CATALOGUE["leaks_into_the_next"].build(reference))
    wrong = leaking["the logits"][leaking["the logits"] != "right"]
    assert list(wrong.index) == ["a second time", "two at the same time"]
    healthy = symptoms(reference)["the logits"]
    assert (healthy == "right").all()


def test_looks_are_the_attention_weights(reference):
    ids = random_ids(1, 9)
    whole = attention_maps(reference, ids).mean((0, 1))
    for chunks in ((9,), (4, 1, 1, 1, 1, 1), (5, 4)):
        rows = looks(reference, ids, chunks)
        assert [len(row) for row in rows[: chunks[0]]] == [chunks[0]] * chunks[0]
        for position, row in enumerate(rows):
            seen = row[: position + 1]
            assert torch.allclose(seen, whole[position, : position + 1], 0, 1e-12)
            assert row[position + 1 :].abs().sum() == 0


def test_the_check_of_the_assignment_sees_few(reference):
    seen = survey(reference)
    assert {name for name, checks in seen.items() if not any(checks.values())} == UNSEEN
    by_assignment = {name for name, checks in seen.items() if checks["at once"]}
    assert by_assignment == {
        "one_layer_for_all",
        "last_block_for_all",
        "prefill_unmasked",
        "cache_in_default_dtype",
    }
    only_past_the_end = {
        name for name, c in seen.items() if c["past the end"] and sum(c.values()) == 1
    }
    assert only_past_the_end == {
        "last_position_repeats",
        "positions_wrap_round",
        "growth_in_a_chunk",
    }
    for probe, names in (
        ("after a rollback", {"rollback_of_one_layer", "rollback_keeps_position"}),
        ("prompts of different length", {"padding_in_sight", "padding_counted", "full_block_lost"}),
        ("on another device", {"cache_on_the_cpu"}),
    ):
        assert {name for name, c in seen.items() if c[probe] and sum(c.values()) == 1} == names
