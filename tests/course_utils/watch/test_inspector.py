"""The inspector shows what is in a cache, right or wrong, the course's or another."""

import pytest
import torch
from helpers import random_ids, small_model

from course_utils import watch
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.watch.inspector import stripe


def filled(kind, tokens=5):
    model = small_model()
    cache = kind(model, 1)
    with torch.no_grad():
        model(random_ids(1, tokens), past_kv=cache, use_cache=True)
    return cache


@pytest.mark.parametrize("kind, room", [(GrowingCache, 5), (PreallocatedCache, 24)])
def test_the_courses_caches(kind, room):
    cache = filled(kind)
    layers = watch.contents(cache)
    assert [(layer.length, layer.room) for layer in layers] == [(5, room)] * 2
    assert sum(layer.nbytes for layer in layers) == cache.nbytes
    assert torch.equal(layers[1].keys[:, :, :5], cache.keys[1][:, :, :5])
    assert stripe(layers[0]) == "█" * 5 + "░" * (room - 5)
    table = watch.inspect(cache).table()
    assert table.loc["together", "bytes"] == cache.nbytes
    assert list(table["length"])[:2] == [5, 5]


def test_what_is_beyond_the_length_is_not_there_whatever_the_memory_holds():
    cache = filled(PreallocatedCache)
    cache.truncate(2)
    assert stripe(watch.contents(cache)[0]) == "█" * 2 + "░" * 22


def test_a_layer_that_is_short_and_values_that_are_missing_are_seen():
    cache = filled(GrowingCache)
    cache.keys[1] = cache.keys[1][:, :, :3]
    cache.values[0] = torch.zeros_like(cache.values[0])
    stripes = [stripe(layer) for layer in watch.contents(cache)]
    assert stripes == ["▀▀▀▀▀", "███▄▄"]


def test_a_long_cache_gets_a_short_stripe():
    rows = torch.ones(1, 2, 100, 4)
    rows[:, :, 50:] = 0
    assert stripe(watch.contents([(rows, rows)])[0]) == "█" * 12 + "▓" + "░" * 12


class Pairs:
    def __init__(self):
        self.length, self.stored = 2, [(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4)), None]


class Deep:
    def __init__(self):
        self.inner = {"per layer": [{"k": torch.ones(1, 2, 3, 4), "v": torch.ones(1, 2, 3, 4)}]}


ONE = torch.ones(1, 2, 3, 4)
OTHERS = {
    "pairs in an attribute": (Pairs(), [2, 2], [3, 0]),
    "objects inside objects": (Deep(), [3], [3]),
    "a tuple of pairs": (((ONE, ONE), (ONE, ONE)), [3, 3], [3, 3]),
    "a pair": ((ONE, ONE), [3], [3]),
    "a state with a cache in it": ((torch.ones(1, 3), filled(GrowingCache)), [5, 5], [5, 5]),
    "keys without values": ({"keys": [ONE]}, [3], [3]),
    "an empty cache": (GrowingCache(small_model(), 1), [0, 0], [0, 0]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_caches_are_understood_as_far_as_can_be_told(kind):
    cache, lengths, rooms = OTHERS[kind]
    layers = watch.contents(cache)
    assert [layer.length for layer in layers] == lengths
    assert [layer.room for layer in layers] == rooms


def test_a_cache_of_transformers():
    transformers = pytest.importorskip("transformers")
    cache = transformers.DynamicCache()
    for layer in range(2):
        cache.update(ONE, ONE, layer)
    assert [stripe(layer) for layer in watch.contents(cache)] == ["███", "███"]


@pytest.mark.parametrize("thing", [None, 7, "cache", torch.ones(3), [], {}, object()])
def test_what_is_not_understood_gets_a_message_that_says_what_was_looked_for(thing):
    found = watch.inspect(thing)
    assert f"No keys and values found in this {type(thing).__name__}." in repr(found)
    assert "`keys` and `values`" in repr(found) and "`keys` and `values`" in found._repr_html_()


def test_a_screen_reader_hears_the_stripes_in_words():
    html = watch.inspect(filled(PreallocatedCache))._repr_html_()
    assert html.count('role="img" aria-label="5 of 24 keys, 5 of 24 values"') == 2
    assert html.count("█") == 2 * 5 + 1  # and in the legend
