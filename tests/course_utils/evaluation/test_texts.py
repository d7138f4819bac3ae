"""The texts share what their docstring says, and every id occurs."""

import torch

from course_utils.evaluation.random_scripts import TEXTS
from course_utils.evaluation.texts import SAME_BEGINNINGS, texts, uniform


def test_texts_share_parts_on_purpose():
    found = texts(50, 64)
    text, first, blocks, pairs, pieces, fourth, turned = found[:, 2]
    assert (first != text).nonzero().flatten().tolist() == [0]
    assert torch.equal(blocks[8:16], text[8:16])
    assert (blocks[:8] != text[:8]).all()
    assert torch.equal(pairs[:2], text[:2])
    assert (pairs[2:4] != text[2:4]).all()
    assert torch.equal(pieces[:4], text[:4])
    assert torch.equal(pieces[4:8], blocks[4:8])
    assert (fourth != text).nonzero().flatten().tolist() == list(range(3, 64, 4))
    assert torch.equal(turned[:4], text[:4].flip(0))


def test_rows_share_parts_and_every_id_occurs():
    found = texts(50, 64)
    assert (found[0, 0] != found[0, 1]).nonzero().flatten().tolist() == [0]
    assert set(found[2, 0, :50].tolist()) == set(range(50))
    assert found[2, 0, :2].tolist() == [0, 49]
    assert set(found[0, -1].tolist()) == {0, 49}


def test_small_vocabularies_and_rooms_do():
    for vocab_size in (1, 2, 3):
        found = texts(vocab_size, 9)
        assert found.min() >= 0
        assert found.max() < vocab_size
    assert texts(50, 1).shape[-1] == 1


def test_in_more_texts_rows_tokens_and_beginnings_are_alike():
    text = texts(50, 64)[0]
    same, runs, *longer = uniform(text, 50)
    for other, length in zip(longer, SAME_BEGINNINGS, strict=True):
        assert torch.equal(other[:, :length], text[:, :length])
        assert (other[:, length:] != text[:, length:]).all()
    assert len(texts(50, 64)) + 2 + len(longer) == TEXTS
    assert torch.equal(same, text[:1].expand_as(text))
    assert all((run == run[:, :1]).all() for run in runs.split(12, dim=1))
    assert torch.equal(runs[:, ::12], text[:, ::12])
