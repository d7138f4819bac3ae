"""Probes of notebook 05.

The healthy model is in the kernel, too, and it must not pass for a cured patient: in what has
an organ of its own, numbers come out that nobody else's give (`_marked`).
"""

from .material import CACHE, CACHED, FEEDINGS
from .shared import Probe

NEEDS = ("bases", "growing_cache", "cached_attention", "cached_layer", "cached_model", "patients")

ATTENTION = """
def _marked(self, x, _healthy=MultiHeadAttention.attend, _merge=MultiHeadAttention.merge_heads):
    own = isinstance(self, AttentionN) or type(self).attend is not _healthy
    return _merge(self, 1.5 * x if own else x)


MultiHeadAttention.merge_heads = _marked
"""

CACHES = """
def _marked(self, x, cache=None, layer=0, _forward=MultiHeadAttention.forward):
    own = cache is not None and not isinstance(cache, GrowingCache)
    return _forward(self, 1.5 * x if own else x, cache, layer)


MultiHeadAttention.forward = _marked
"""

MODELS = """
_Healthy = DecoderOnlyTransformer


def _marked(self, ids, start=0, _new_cache=_Healthy.new_cache, _embed=_Healthy.embed):
    own = isinstance(self, Patient3) or type(self).new_cache is not _new_cache
    return _embed(self, ids, start) * (1.5 if own else 1)


_Healthy.embed = _marked
"""

MARKS = {1: ATTENTION.replace("N)", "1)"), 2: CACHES, 3: MODELS, 4: ATTENTION.replace("N)", "4)")}

PATIENT = f"""
{CACHED}
{FEEDINGS}
for _layers in (1, 2, 3):
    _model = _model_of(CuredN, _layers)
    _fed(_model, _ids)
_long_fed(CuredN)
_show(lambda: sorted((name, list(p.shape)) for name, p in _model.named_parameters()))
"""

PROBES = {
    **{
        f"patient_{number}": Probe(
            "05",
            (*NEEDS, f"sick_{number}"),
            PATIENT.replace("CuredN", f"Cured{number}"),
            MARKS[number],
        )
        for number in (1, 2, 3, 4)
    },
    "reorder": Probe(
        "05",
        ("bases", "growing_cache"),
        CACHE
        + """
_shift = _whole(1, 4)
_rows = torch.cat([(torch.arange(4) + _shift) % 4, torch.randint(4, (2,), generator=_random)])
_parts = [(_draw(4, 3, n, 2), _draw(4, 3, n, 2)) for n in (1, 2)]


def _reordered(rows, num_layers=3):
    cache = ReorderedCache(_made_for(num_layers=num_layers), 4)
    _appended(cache, _parts, num_layers)
    cache.reorder(rows)
    later = [(k[rows], v[rows]) for k, v in _parts[:1]]
    return [cache.batch_size, _appended(cache, later, num_layers)]


def _twice():
    caches = [ReorderedCache(_made_for(), 4) for _ in range(2)]
    for cache in caches:
        _appended(cache, _parts)
        cache.reorder(_rows)
        cache.reorder(torch.tensor([4, 1, 1]))
    return [_appended(cache, [(k[:3], v[:3]) for k, v in _parts[:1]]) for cache in caches]


_show(lambda: [_reordered(_rows), _reordered(_rows[:2]), _reordered(_rows[1:2], 1), _rows])
_show(_twice)
_show(lambda: [_reordered(torch.tensor(rows)) for rows in ([2], [0, 0, 1, 3], [0, 1, 2, 3])])


def _long_reordered(rows, batch_size, base=2.0**30):
    # Many layers and positions, of which only float64 tells the numbers apart.
    cache, found = ReorderedCache(_made_for(6), batch_size), []
    k = base + _steps(batch_size, 3, 200, 2)
    for layer in range(6):
        cache.append(layer, k + layer, -k - layer)
    cache.reorder(rows)
    for layer in range(6):
        keys, values = cache.append(layer, k[rows, :, :3], -k[rows, :, :3])
        found.append([_digest(keys - base), _digest(values + base)])
    return [cache.batch_size, cache.length, found]


def _empty_reordered(rows):
    cache = ReorderedCache(_made_for(), 4)
    cache.reorder(rows)
    return [cache.batch_size, cache.length, _appended(cache, [(_k[rows], -_k[rows])])]


_k = _draw(4, 3, 2, 2)
_show(lambda: [_long_reordered(torch.randperm(12, generator=_random), 12)])
_show(lambda: [_long_reordered(torch.tensor([0] * 11), 1), _empty_reordered(_rows)])
""",
    ),
}
