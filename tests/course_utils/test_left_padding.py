"""Prompts of different length in one batch give what each gives alone."""

import pytest
import torch
from helpers import random_ids, small_model
from torch.nn.utils.rnn import pad_sequence

from course_utils.evaluation import uncached
from course_utils.left_padding import LeftPaddedTransformer, left_pad


@torch.no_grad()
def side_by_side(model, rows, steps):
    """Logits (B, longest, V) of sequences (T_i,) that go in as one batch, padded on the left.

    All but the last `steps` tokens of each row are the prefill; these then go in one at a time.
    What comes back is padded with zeros on the right: column i is each row's own position i.
    """
    ids, padding = left_pad([row[: len(row) - steps] for row in rows])
    last = torch.stack([row[len(row) - steps :] for row in rows])
    logits, past_kv = [], model.padded_cache(padding)
    for portion in [ids, *last.split(1, dim=1)] if steps else [ids]:
        part, past_kv = model(portion, past_kv=past_kv, use_cache=True)
        logits.append(part)
    found = torch.cat(logits, dim=1)
    own = [found[i, pad:] for i, pad in enumerate(padding.tolist())]
    return pad_sequence(own, batch_first=True)


def prompts(*lengths, seed=0):
    return [random_ids(1, n, seed=seed + n)[0] for n in lengths]


def test_the_prompts_end_in_the_last_column():
    ids, padding = left_pad([torch.tensor([5, 3, 8]), torch.tensor([7])], pad=1)
    assert ids.tolist() == [[5, 3, 8], [1, 1, 7]]
    assert padding.tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(10))
def test_a_batch_gives_what_each_prompt_gives_alone(seed):
    model = small_model(LeftPaddedTransformer, seed=seed)
    lengths = torch.randint(5, 20, (4,), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = prompts(*lengths, seed=seed)
    for steps in (0, 1, 4):
        found = side_by_side(model, rows, steps)
        for row, logits in zip(rows, found, strict=True):
            assert torch.allclose(logits[: len(row)], uncached(model, row[None])[0], 0, 1e-9)


def test_what_the_padding_is_makes_no_difference():
    model = small_model(LeftPaddedTransformer)
    found = []
    for pad in (0, 9):
        ids, padding = left_pad(prompts(3, 8), pad)
        with torch.no_grad():
            logits, _ = model(ids, past_kv=model.padded_cache(padding), use_cache=True)
        found.append(torch.cat([logits[0, 5:], logits[1]]))
    assert torch.equal(*found)
    assert found[0].isfinite().all()


def test_several_tokens_go_on_from_a_padded_batch_and_rows_can_be_reordered():
    model = small_model(LeftPaddedTransformer)
    rows = prompts(9, 12)
    ids, padding = left_pad([row[:-4] for row in rows])
    cache = model.padded_cache(padding)
    order = torch.tensor([1, 0, 1])
    with torch.no_grad():
        model(ids, past_kv=cache, use_cache=True)
        cache.reorder(order)
        last = torch.stack([rows[i][-4:] for i in order])
        found, _ = model(last, past_kv=cache, use_cache=True)
    for i, logits in zip(order, found, strict=True):
        assert torch.allclose(logits, uncached(model, rows[i][None])[0, -4:], 0, 1e-9)


def test_without_padding_it_is_the_course_model():
    model = small_model(LeftPaddedTransformer)
    plain = small_model(seed=1)
    plain.load_state_dict(model.state_dict())
    ids = random_ids(2, 7)
    assert torch.equal(uncached(model, ids), uncached(plain, ids))
