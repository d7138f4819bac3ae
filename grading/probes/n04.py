"""Probes of notebook 04."""

from .material import CACHE, CACHED, EMBEDDED, FEEDINGS, LARGE, TABLE
from .shared import Probe

PROBES = {
    "growing_cache": Probe(
        "04",
        ("bases",),
        CACHE
        + """
_show(lambda: _appended(GrowingCache(_made_for(), 2), _portions))
_show(lambda: _appended(GrowingCache(_made_for(), 2), _portions[::-1]))
_show(lambda: _appended(GrowingCache(_made_for(num_layers=1), 2), _portions, 1))
_show(lambda: _in_turns(GrowingCache, 2))
_show(lambda: [GrowingCache(_made_for(), 5).length, _portions[0]])
_show(lambda: _in_16_bits(GrowingCache))
_filled_many(GrowingCache)
_show(lambda: _of_another_device(GrowingCache))
""",
    ),
    "cached_attention": Probe(
        "04",
        ("bases", "growing_cache"),
        CACHE
        + """
_layer = _filled(_quietly(lambda: MultiHeadAttention(6, 3)), _random)
_x = _draw(2, 9, 6)
_show(lambda: copy.deepcopy(_layer).train()(_x))


def _attended(sizes):
    cache = GrowingCache(_made_for(), 2)
    parts = [_layer(part, cache, layer) for part in _x.split(sizes, dim=1) for layer in (0, 2, 1)]
    return [parts, cache.length, cache.keys, cache.values]


_show(lambda: [_layer(_x), _layer(_x, None, 1), _x])
_show(lambda: [_attended([9]), _attended([1] * 9), _attended([4, 2, 3])])
_of_one = _quietly(lambda: GrowingCache(_made_for(), 2))
_show(lambda: [_layer(_x[:, :4], _of_one), _layer(_x[:, 4:], cache=_of_one), _of_one.length])
_show(lambda: _gradients(_layer, _x, module=_layer))


class _Kept:
    # A cache that shows what it holds to who appends, and only there.
    length = 0

    def __init__(self):
        self._parts = {}

    def append(self, layer, k, v):
        self._parts.setdefault(layer, []).append((k, v))
        self.length += k.size(2) if layer == 0 else 0
        return tuple(torch.cat(every, dim=2) for every in zip(*self._parts[layer], strict=True))


def _long_attended(layer, x, sizes):
    cache = _Kept()
    return [layer(part, cache, number) for part in x.split(sizes, dim=1) for number in (5, 0, 4)]


# Long, many rows, layers and heads, without a cache afterwards; in training; float32.
_long, _rows, _cut = _draw(1, 1200, 6), _draw(5, 90, 6), 1000 + _whole(0, 99)
_heads = _filled(_quietly(lambda: MultiHeadAttention(24, 12)), _random)
_show(lambda: [_digest(x) for x in _long_attended(_layer, _long, [_cut, 1, 70, 1129 - _cut])])
_ways = [70, 1, 19], [1, 69, 1, 19], [5, 75, 10]
_show(lambda: [_digest(x) for way in _ways for x in _long_attended(_layer, _rows, way)])
_show(lambda: [_digest(_layer(_rows)), _digest(_layer(_spread(_long))), _layer(_x[:, :2])])
_show(lambda: [_digest(x) for x in _long_attended(_heads, _draw(2, 9, 24), [5, 4])])
_training, _low = copy.deepcopy(_layer).train(), copy.deepcopy(_layer).float()
_show(lambda: [_digest(x) for x in _long_attended(_training, _x, [5, 1, 3])])
_both = lambda x: _long_attended(_low if x.dtype == torch.float32 else _layer, x, [5, 1, 3])
_show(lambda: [_alike(_both, _x), _alike(_of_both(_layer), _x)])
_show(lambda: _alike(lambda x: _gradients(_of_both(_layer), x), _x))
_layer_there = _there(_layer)


def _used_there():
    cache = GrowingCache(_made_for(device=_FAR), 2)
    return [_layer_there(_there(_x), cache, 1) for _ in range(2)]


_show(lambda: _elsewhere(_used_there))
""",
    ),
    "cached_model": Probe(
        "04",
        ("bases", "growing_cache", "cached_attention", "cached_layer"),
        CACHED
        + """
_model = _model_of(DecoderOnlyTransformer, 2)
_show(lambda: [_model(_ids)[0], _model(_ids)[1] is None, _model(_ids[:1, :1])[0]])
_sizes = ("max_seq_len", "num_layers", "num_heads", "d_head")
_show(lambda: [getattr(_model, name) for name in _sizes])
_show(lambda: sorted((name, list(p.shape)) for name, p in _model.named_parameters()))
_show(lambda: [_model.embed(_ids), _model.embed(_ids[:, :3], 5), _ids])
"""
        + FEEDINGS
        + EMBEDDED
        + """
_fed(_model, _ids)
_fed(_model_of(DecoderOnlyTransformer, 1), _ids)
_fed(_model_of(DecoderOnlyTransformer, 5), _ids)
_long_fed(DecoderOnlyTransformer)
_past = _quietly(lambda: _model(_ids, use_cache=True)[1])
_show(lambda: [_past.length, _ends(lambda: _model(_ids[:, :1], _past, True))])
_past = _quietly(lambda: _model(_ids[:, :9], None, True)[1])
_show(lambda: [_ends(lambda: _model(_ids[:, :1], _past)), _past.length, _past.batch_size])
_show(lambda: _gradients(lambda: _model(_ids)[0], module=_model))
_usual = _filled(_quietly(lambda: DecoderOnlyTransformer(_shape[0], 12, 24, 4, 20)), _random)
_show(lambda: _usual(_ids)[0])

_dropping = _quietly(lambda: DecoderOnlyTransformer(*_shape, 3, 16, 3, _one_of(0.3, 0.7)))
for _use in ({}, {"use_cache": True}):
    _models = _usual, _filled(_dropping, _random)
    _show(lambda: [_embedded(model, _shape[0], **_use) for model in _models])
""",
    ),
    "decode_loop": Probe(
        "04",
        ("bases", "growing_cache", "cached_attention", "cached_layer", "cached_model"),
        CACHED
        + TABLE
        + LARGE
        + """
_model = _model_of(DecoderOnlyTransformer, 2)
_fed = _inputs(_model)
_ways = [(_ids[:, :_cut], use_cache) for use_cache in (True, False)]
_show(lambda: [list(decode_loop(_model, ids, 5, way, temperature=0)) for ids, way in _ways])
_show(lambda: [[x.size(1) for x in _fed], _ids])
_show(lambda: next(iter(decode_loop(_model, _ids[:, :9], 4, True, temperature=0))))
_show(lambda: [len(_fed), list(decode_loop(_model, _ids[:, :3], 0, True))])

_order = _quietly(lambda: _Table(3 * _draw(7, 7, 7)))
_rows = torch.randint(7, (6, 4), generator=_random)


def _continued(number=6, **options):
    return [
        list(decode_loop(_order, _rows[:number], 7, way, temperature=0, **options))
        for way in (True, False)
    ]


def _after(past_length):
    past = _order(_rows[:, :past_length], use_cache=True)[1]
    return list(decode_loop(_order, _rows[:, past_length:], 5, True, past, temperature=0))


_past = _quietly(lambda: _model(_ids[:, :3], use_cache=True)[1])
_show(lambda: list(decode_loop(_model, _ids[:, 3:7], 4, True, _past, temperature=0)))
_show(lambda: [_continued(), [_continued(stop_token=token) for token in range(7)], _rows])
_show(lambda: [_continued(number, stop_token=token) for number in (1, 2) for token in range(7)])
_show(lambda: [_after(1), _after(3), list(decode_loop(_order, _rows, 6, False, top_k=1))])


def _drawn(use_cache, *heat, seed=1, **options):
    options |= {"temperature": heat[0]} if heat else {}
    model, generator = _table(heat[0] if heat else 1.0), None if seed is None else _seeded(seed)
    new = list(decode_loop(model, _starts, 3, use_cache, generator=generator, **options))
    return torch.cat([_starts, torch.stack(new, dim=1)], dim=1)


_show(lambda: [_shares(_drawn(way, *heat), 1) for way in (True, False) for heat in ([], [_heat])])
_show(lambda: len(next(iter(decode_loop(_even_table(), _zeros, 1, True))).unique()))
_seeds = [(5, 5), (5, 6), (5, None), (None, None)]
_show(lambda: [bool((_drawn(True, seed=a) == _drawn(True, seed=b)).all()) for a, b in _seeds])


# Long texts, many rows, words and new words; every cut; one row.
def _greedy(ids, new, **options):
    ways = [list(decode_loop(_large, ids, new, way, temperature=0)) for way in (True, False)]
    return [torch.stack(way) for way in ways]


_show(lambda: [_greedy(_text, 3), _greedy(_rows, 3), _greedy(_short, 30), _greedy(_short[:1], 9)])
_even = _even_table()


def _told(seed, use_cache, rows=1, **options):
    generator = _seeded(seed)
    new = decode_loop(_even, _zeros[:rows], 12, use_cache, generator=generator, **options)
    return torch.stack(list(new)).tolist()


_cuts = [{}, {"top_k": 11}, {"top_p": 0.97}, {"top_k": 11, "top_p": 0.97}]
_kinds = [(way, rows, cut) for way in (True, False) for rows in (1, 5) for cut in _cuts]
_show(lambda: [_told(5, way, n, **cut) == _told(5, way, n, **cut) for way, n, cut in _kinds])
_show(lambda: [_told(5, way, n, **cut) == _told(6, way, n, **cut) for way, n, cut in _kinds])
_show(lambda: _shares(_drawn(True, 5.0, top_p=0.9999), 1))
_given = [_there(_model), _there(_ids)[:, :4], 2, True]
_show(lambda: _elsewhere(lambda: next(iter(decode_loop(*_given, stop_token=2, temperature=0)))))
""",
    ),
    "preallocated_cache": Probe(
        "04",
        ("bases",),
        CACHE
        + """
_show(lambda: _appended(PreallocatedCache(_made_for(), 2), _portions))
_show(lambda: _appended(PreallocatedCache(_made_for(num_layers=1), 2), _portions, 1))
_cache = _quietly(lambda: PreallocatedCache(_made_for(), 2))
_place = _cache.keys.data_ptr(), _cache.values.data_ptr()
_show(lambda: _appended(_cache, _portions[::-1]) + [_cache.nbytes])
_show(lambda: _place == (_cache.keys.data_ptr(), _cache.values.data_ptr()))
_at = [x.data_ptr() for x in _quietly(lambda: _cache.append(1, *map(torch.clone, _portions[0])))]
_show(lambda: _at == [_cache.keys[1].data_ptr(), _cache.values[1].data_ptr()])
_show(lambda: _in_turns(PreallocatedCache, 2))
_show(lambda: [PreallocatedCache(_made_for(), 5).length, _portions[0]])
_show(lambda: _in_16_bits(PreallocatedCache))
_filled_many(PreallocatedCache)
_show(lambda: _of_another_device(PreallocatedCache))
_full = _quietly(lambda: PreallocatedCache(_made_for(), 2))
_all = _draw(2, 3, 25, 2)
_show(lambda: [[_full.append(layer, _all, -_all) for layer in range(3)], _full.length])
""",
    ),
}
