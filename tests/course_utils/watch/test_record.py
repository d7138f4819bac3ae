"""The record of a cache at work is what the model did: its logits, rows, looks and operations."""

import pytest
import torch

from course_utils import cache_bugs, watch
from course_utils.counting import Asked
from course_utils.evaluation import Feed, New, lane_in, precise_copy, uncached
from course_utils.kv_cache import GrowingCache
from course_utils.stories import Tokenizer
from course_utils.transformer import DecoderOnlyTransformer, attention_maps, load_model

CALLS = (17, 1, 1, 2, 1, 1)
TEXT = "Mia put the red bell in the wooden box. Where is the red bell?"
NOT_HEARD = {"last_block_for_all"}  # its attention has no `attend` of its own
HEARD = [name for name in cache_bugs.CATALOGUE if name not in NOT_HEARD]


def test_what_goes_in_is_the_text_and_what_the_uncached_model_says_next(recorder, right):
    greedy = right.generate(recorder.text.ids[:, :17], 6, temperature=0, use_cache=False)
    assert torch.equal(recorder.text.ids, greedy)
    assert [call.end - call.start for call in recorder.uncached.calls[1:]] == list(CALLS[1:])


def test_what_comes_out_is_what_the_uncached_pass_gives(recorder, watched, right):
    precise, _ = precise_copy(right)
    for record in (recorder.uncached, watched.records[0]):
        for call in record.calls:
            logits = uncached(precise, recorder.text.ids[:, : call.end])[0, -1]
            likely = torch.softmax(logits, dim=-1)
            for word, share in call.top:
                assert share == pytest.approx(likely[Tokenizer().ids[word]].item(), abs=1e-9)


def test_a_right_cache_writes_each_row_once_and_reads_all_before_it(watched):
    room = sum(CALLS)
    for call in watched.records[0].calls:
        rows = "r" * call.start + "w" * (call.end - call.start) + "." * (room - call.end)
        assert call.cells == [{"K": rows, "V": rows}] * 4
    for call in watched.uncached.calls:
        rows = "w" * call.end + "." * (room - call.end)
        assert call.cells == [{"K": rows, "V": rows}] * 4


def test_the_cache_holds_the_rows_that_the_record_says_it_reads(recorder, watched, right):
    precise, _ = precise_copy(right)
    cache = None
    for number, portion in enumerate(recorder.text.ids.split(CALLS, dim=1)):
        with torch.no_grad():
            _, cache = precise(portion, past_kv=cache, use_cache=True)
        call = watched.records[0].calls[number]
        for layer, held in enumerate(watch.contents(cache)):
            rows = call.cells[layer]["K"]
            assert held.length == sum(letter in "rw" for letter in rows)
            keys = held.keys[0, :, : held.length].transpose(0, 1).flatten(1)
            made = recorder.layers[-1][layer].made["K"][: held.length]
            assert torch.allclose(keys, made, atol=1e-9)


def test_the_looks_are_the_attention_of_the_model(recorder, watched, right):
    maps = attention_maps(precise_copy(right)[0], recorder.text.ids).mean(1)
    for call in watched.records[0].calls[1:]:
        for layer, seen in enumerate(call.looks):
            expected = (100 * maps[layer, call.start : call.end]).round().int()
            assert torch.equal(torch.tensor(seen, dtype=torch.int32), expected)


def test_the_operations_are_those_of_the_model_alone(recorder, watched, right):
    precise, _ = precise_copy(right)
    cache = None
    for number, portion in enumerate(recorder.text.ids.split(CALLS, dim=1)):
        with torch.no_grad(), Asked() as cached:
            _, cache = precise(portion, past_kv=cache, use_cache=True)
        call = watched.records[0].calls[number]
        with torch.no_grad(), Asked() as plain:
            precise(recorder.text.ids[:, : call.end])
        assert call.operations == cached.operations
        assert watched.uncached.calls[number].operations == plain.operations


@pytest.mark.authors
@pytest.mark.parametrize("name", HEARD)
def test_a_wrong_cache_is_wrong_first_where_kv_evaluate_says_it_is(name, recorder, right):
    bug = cache_bugs.CATALOGUE[name].build(right)
    record = recorder.record(name, bug)
    ids, earlier = recorder.text.ids, recorder.text.earlier
    texts = torch.zeros(2, 1, ids.size(1), dtype=torch.long)
    texts[0], texts[1, :, : earlier.size(1)] = ids, earlier
    feeds = [Feed(tokens) for tokens in CALLS]
    script = [New(), Feed(earlier.size(1), text=1), New(), *feeds]
    outcome = lane_in(bug, None, None).play(script, texts, judged_from=3)
    if outcome.error is not None:
        assert record.ended.startswith(type(outcome.error).__name__)
    elif outcome.problem is None:
        assert record.first_wrong is None
    else:
        wrong = record.calls[record.first_wrong]
        assert record.first_wrong == outcome.step - 3
        assert wrong.position == outcome.difference.position


def test_each_patient_shows_its_own_fault(watched):
    healthy, masks, stale, leaks, unmasked = watched.records
    assert [r.first_wrong for r in watched.records] == [None, 1, 2, 0, 3]
    itself = [0] * 23
    itself[17] = 100
    assert all(layer == [itself] for layer in masks.calls[1].looks)
    assert masks.calls[1].cells[0]["K"][17] == "w" and masks.calls[1].cells[1]["K"][17] == "W"
    assert all(layer["K"][17:19] == layer["V"][17:19] == "--" for layer in stale.calls[3].cells)
    assert leaks.rows[:7] == "<story> Ana found the shiny lamp .".split()
    assert all(layer["V"].startswith("x" * 7) for layer in leaks.calls[0].cells)
    first = [layer[0] for layer in unmasked.calls[3].looks]
    assert first[1][20] == 30 and healthy.calls[3].looks[1][0][20] == 0


def test_rows_that_were_never_made_are_other_numbers(recorder, right):
    record = recorder.record("no values", cache_bugs.CATALOGUE["values_not_cached"].build(right))
    assert record.calls[1].cells[0] == {
        "K": "r" * 17 + "w" + "." * 5,
        "V": "R" * 17 + "w" + "." * 5,
    }


class Breaks(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if past_kv is not None:
            raise KeyError("layer 2")
        return super().forward(input_ids, past_kv, use_cache)


class NotYet(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        raise NotImplementedError("Your turn")


def test_what_a_cache_raises_is_in_its_record_and_on_its_page(right):
    watched = watch.watch(load_model(model_class=Breaks, device="cpu"), Tokenizer(), TEXT)
    assert watched.records[0].ended == "KeyError: 'layer 2'"
    assert len(watched.records[0].calls) == 1
    assert "2. KeyError: 'layer 2'" in repr(watched)
    assert "KeyError" in watched._repr_mimebundle_()[0]["text/html"]


def test_an_exercise_that_is_not_done_says_so():
    model = load_model(model_class=NotYet, device="cpu")
    with pytest.raises(NotImplementedError, match="Your turn"):
        watch.watch(model, Tokenizer(), TEXT)


def test_a_model_that_cannot_be_heard_gets_a_message(right):
    found = watch.watch(torch.nn.Linear(2, 2), Tokenizer(), TEXT)
    assert "must be in `model.layers[i].attention`" in repr(found) and found.records == []


@pytest.mark.parametrize("name", NOT_HEARD)
def test_a_wrong_cache_that_cannot_be_heard_says_so_in_its_record(name, recorder, right):
    record = recorder.record(name, cache_bugs.CATALOGUE[name].build(right))
    assert record.ended.startswith("CannotWatch") and record.calls == []


def test_the_watched_model_is_left_as_it_was(right):
    class Growing(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return GrowingCache(self, batch_size)

    model = load_model(model_class=Growing, device="cpu")
    watch.watch(model, Tokenizer(), TEXT, calls=(1,))
    assert all("attend" not in vars(layer.attention) for layer in model.layers)
    assert next(model.parameters()).dtype == torch.float32


def test_the_same_run_gives_the_same_text_and_page(watched, right):
    again = watch.watch({"healthy": right}, Tokenizer(), TEXT)
    once = watch.watch({"healthy": right}, Tokenizer(), TEXT)
    assert again._repr_mimebundle_()[0]["text/html"] == once._repr_mimebundle_()[0]["text/html"]
    assert repr(again) == repr(once)
