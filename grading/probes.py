"""What is printed of an answer when it is graded, on inputs that are drawn for each grading run.

A probe is code that runs in the student's kernel after the answer, with `SEED` replaced by a
number. It prints values, and nothing in that process knows which values are right: the master's are
compared outside. Numbers are in float64 and rounded to 4 digits (float32 to 2), so that answers
written another way agree.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """How to grade one exercise: what it needs, and what to print.

    `needs` names exercises, whose answers by the course come first, and pieces of `graft.piece`.
    """

    notebook: str
    needs: tuple[str, ...]
    code: str


PREAMBLE = """
import contextlib as _contextlib
import io as _io
import json
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.benchmark import timer


def _plain(x, digits=4):
    if isinstance(x, Tensor):
        digits = 4 if x.dtype == torch.float64 else 2
        listed = _plain(x.detach().double().flatten().tolist(), digits)
        return [str(x.dtype), list(x.shape), listed]
    if isinstance(x, (list, tuple)):
        return [_plain(item, digits) for item in x]
    number = isinstance(x, numbers.Real) and not isinstance(x, bool)
    return round(float(x), digits) + 0.0 if number else x


def _quietly(compute):
    quiet = _io.StringIO()
    with _contextlib.redirect_stdout(quiet), _contextlib.redirect_stderr(quiet), torch.no_grad():
        return compute()


def _show(compute):
    print(_quietly(lambda: _plain(compute())))


def _filled(module, generator):
    for _, parameter in sorted(module.named_parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator).double()
    return module.eval()


_random = torch.Generator().manual_seed(SEED)


def _draw(*shape):
    return torch.randn(shape, generator=_random, dtype=torch.float64)


def _whole(low, high):
    return int(torch.randint(low, high, (1,), generator=_random))
"""

MODEL = """
_shape = (_whole(8, 20), 12, 24, _whole(1, 4), 16)
_model = _filled(_quietly(lambda: DecoderOnlyTransformer(*_shape, 3, 0.0)), _random)
_ids = torch.randint(_shape[0], (2, _whole(3, 9)), generator=_random)
"""

CACHE = """
_sizes = (_whole(1, 4), _whole(1, 4), _whole(1, 4))
_made_for = SimpleNamespace(
    num_layers=2, num_heads=2, d_head=3, max_seq_len=12, dtype=torch.float64,
    device=torch.device("cpu"),
)


def _appended(cache, portions):
    found = []
    for k, v in portions:
        found += [cache.append(layer, k + layer, v - layer) for layer in (0, 1)]
        found.append([cache.length, cache.batch_size])
    return found


_portions = [(_draw(2, 2, n, 3), _draw(2, 2, n, 3)) for n in _sizes]
"""

CACHED = """
_shape = (_whole(8, 20), 12, 24, _whole(2, 4), 16)


def _model_of(made):
    return _filled(_quietly(lambda: made(*_shape, 3, 0.0)), _random)


def _in_portions(model, ids, sizes):
    past, found = None, []
    for part in ids.split(sizes, dim=1):
        logits, past = model(part, past_kv=past, use_cache=True)
        found.append(logits)
    return found


def _ends(compute):
    try:
        compute()
        return "it ran"
    except ValueError:
        return "ValueError"


_ids = torch.randint(_shape[0], (2, 16), generator=_random)
_cut = _whole(2, 7)
"""

PATIENT = """
_show(lambda: _in_portions(_model, _ids, [_cut, 1, 1, 3, 10 - _cut, 1]))
_show(lambda: _in_portions(_model, _ids.flip(1), [_cut, 2, 14 - _cut]))
_show(lambda: _in_portions(_model, _ids[:1], [1, 1, 1, 3, 10]))
_show(lambda: _in_portions(_model, _ids[:1], [16]))
"""

CLOCK = """
class _Clock:
    now = 100.0

    def __call__(self):
        return self.now


_clock = _Clock()
"""

PROBES = {
    "softmax": Probe(
        "01",
        (),
        """
_x = 3 * _draw(3, 4, 5)
_masked = _x.clone()
_masked[0, 0], _masked[1, 2, : _whole(1, 5)] = -math.inf, -math.inf
_show(lambda: [softmax(_x), softmax(1000 * _x - 500), softmax(_masked), softmax(_x[0, 0])])
_types = (torch.bfloat16, torch.float16, torch.float32)
_show(lambda: [str(softmax(_x.to(dtype)).dtype) for dtype in _types])
_half = torch.zeros(2, 1000, dtype=torch.bfloat16)
_show(lambda: softmax(_half).double().sum(-1).round(decimals=1))
""",
    ),
    "causal_mask": Probe(
        "01",
        (),
        """
_sizes = [(n, n + _whole(0, 6)) for n in (1, _whole(2, 5), _whole(5, 9))] + [(7, 7)]
_show(lambda: [causal_mask(n, m) for n, m in _sizes])
_show(lambda: causal_mask(2, 5, torch.device("meta")).device.type)
""",
    ),
    "attention": Probe(
        "01",
        (),
        """
_q, _k, _v = _draw(2, 3, 4, 6), _draw(2, 3, 7, 6), _draw(2, 3, 7, 5)
_mask = torch.ones(4, 7, dtype=torch.bool).tril(_whole(0, 4))
_show(lambda: [attention_weights(_q, _k), attention_weights(_q, _k, _mask)])
_show(lambda: [attention(_q, _k, _v), attention(_q, _k, _v, _mask)])
_show(lambda: attention(_q[0, 0], _k[0, 0], _v[0, 0]))
_show(lambda: [_q, _k, _v])
""",
    ),
    "multi_head": Probe(
        "01",
        ("causal_mask", "attention"),
        """
_made = _quietly(lambda: [MultiHeadAttention(12, heads) for heads in (1, 3, 12)])
_layers = [_filled(layer, _random) for layer in _made]
_x = _draw(2, _whole(3, 8), 12)
_show(lambda: [layer(_x) for layer in _layers])
_show(lambda: [_layers[1].split_heads(_x), _layers[1].merge_heads(_layers[1].split_heads(_x))])
""",
    ),
    "layer_norm": Probe(
        "02",
        (),
        """
_x, _weight, _bias = 3 * _draw(2, 5, 8) + 2, _draw(8), _draw(8)
_show(lambda: [layer_norm(_x, _weight, _bias), layer_norm(_x[0], _weight, _bias, 0.5)])
_show(lambda: [layer_norm(1e-3 * _x, _weight, _bias), layer_norm(0 * _x, _weight, _bias), _x])
""",
    ),
    "feed_forward": Probe(
        "02",
        (),
        """
_part = _filled(_quietly(lambda: FeedForward(6, 18)), _random)
_show(lambda: sorted((name, list(p.shape)) for name, p in _part.named_parameters()))
_show(lambda: _part(_draw(2, 4, 6)))
""",
    ),
    "decoder_layer": Probe(
        "02",
        ("causal_mask", "attention", "multi_head", "feed_forward"),
        """
_layer = _filled(_quietly(lambda: DecoderLayer(12, 20, 3, 0.0)), _random)
_x = _draw(2, 5, 12)
_show(lambda: sorted((name, list(p.shape)) for name, p in _layer.named_parameters()))
_show(lambda: [_layer(_x), _x])
_show(lambda: DecoderLayer(12, 20, 3, 1.0).double().train()(_x))
""",
    ),
    "model": Probe(
        "02",
        ("causal_mask", "attention", "multi_head", "feed_forward", "decoder_layer"),
        MODEL
        + """
_show(lambda: sorted((name, list(p.shape)) for name, p in _model.named_parameters()))
_show(lambda: [_model(_ids)[0], _model(_ids[:, :1])[0], _model(_ids)[1] is None])
""",
    ),
    "keep_top_k": Probe(
        "03",
        (),
        """
_x = _draw(3, 9)
_tied = _x.round()
_show(lambda: [keep_top_k(_x, k) for k in (1, _whole(2, 8), 9, 12)])
_show(lambda: [keep_top_k(_tied, k) for k in (1, 2, 4)] + [_x])
""",
    ),
    "keep_top_p": Probe(
        "03",
        ("softmax",),
        """
_x = 2 * _draw(3, 9)
_show(lambda: [keep_top_p(_x, p) for p in (0.05, 0.3 + 0.01 * _whole(0, 30), 0.9, 0.995)] + [_x])
_show(lambda: (keep_top_p(torch.zeros(1, 8), 0.5) > -math.inf).sum())
""",
    ),
    "next_token": Probe(
        "03",
        ("softmax", "keep_top_k", "keep_top_p"),
        """
_order = torch.randperm(4, generator=_random)
_row, _heat = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()[_order], 0.5 * _whole(1, 8)


def _shares(**options):
    seeded = torch.Generator().manual_seed(_whole(0, 10**6))
    tokens = next_token((_heat * _row).repeat(20_000, 1), _heat, generator=seeded, **options)
    return [str(tokens.dtype), list(tokens.shape)] + (
        torch.bincount(tokens, minlength=4) / 20_000
    ).double().round(decimals=1).tolist()


_x = _draw(6, 11)
_show(lambda: [next_token(_x, 0), next_token(_x[:1], 0), next_token(_x, 2.0, top_k=1)])
_show(lambda: [_shares(), _shares(top_k=1), _shares(top_p=0.35), _shares(top_k=4, top_p=1.0)])
_show(lambda: sorted(set(next_token(_row.repeat(999, 1), 1.0, top_k=3, top_p=0.75).tolist())))
""",
    ),
    "generate": Probe(
        "03",
        (
            *("softmax", "causal_mask", "attention", "multi_head", "feed_forward"),
            *("decoder_layer", "model", "keep_top_k", "keep_top_p", "next_token"),
        ),
        MODEL
        + """
_show(lambda: [generate(_model, _ids, 6, temperature=0), generate(_model, _ids[:1], 0)])
_show(lambda: generate(_model, _ids, 5, temperature=3.0, top_k=1))
_show(lambda: list(generate(_model, _ids, 4, 5.0, generator=_random).shape))
""",
    ),
    "beam_search": Probe(
        "03",
        (
            *("softmax", "causal_mask", "attention", "multi_head", "feed_forward"),
            *("decoder_layer", "model"),
        ),
        MODEL
        + """
_show(lambda: [beam_search(_model, _ids[:1], 3, beams) for beams in (1, 2, 40)])
""",
    ),
    "token_times": Probe(
        "06",
        (),
        CLOCK
        + """
_seconds = [_whole(1, 9) / 4 for _ in range(5)]


def _tokens():
    for seconds in _seconds:
        _clock.now += seconds
        yield "token"


def _start():
    _clock.now += 0.5
    return _tokens()


_show(lambda: token_times(_start, _clock))
""",
    ),
    "measure": Probe(
        "06",
        (),
        CLOCK
        + """
_log = []


def _task(name, seconds):
    def run():
        _clock.now += seconds if name in _log else 7 * seconds
        _log.append(name)

    return run


_tasks = {name: _task(name, _whole(1, 9) / 4) for name in ("a", "b", "c")}
_show(lambda: sorted(measure(_tasks, 4, _clock).items()))
_show(lambda: [_log.count(name) for name in _tasks])
_show(lambda: any(a == b for a, b in zip(_log[3:], _log[4:], strict=False)))
""",
    ),
    "operations": Probe(
        "06",
        ("causal_mask", "attention", "multi_head", "feed_forward", "decoder_layer", "model"),
        MODEL
        + """
_model.num_layers = _shape[3]
_sizes = [(1, 1), (1, _whole(2, 16)), (_whole(2, 6), _whole(6, 16))]
_show(lambda: [operations(_model, n, t) for n, t in _sizes])
""",
    ),
    "exponent": Probe(
        "06",
        (),
        """
_tokens = np.array([10.0, 20.0, 50.0, 100.0, 500.0])
_times = 0.01 * _tokens ** _whole(1, 4) * np.exp(_draw(5).numpy() / 5)
_show(lambda: exponent(_tokens, _times))
""",
    ),
    "growing_cache": Probe(
        "04",
        ("bases",),
        CACHE
        + """
_show(lambda: _appended(GrowingCache(_made_for, 2), _portions))
_show(lambda: _appended(GrowingCache(_made_for, 2), _portions[::-1]))
_show(lambda: GrowingCache(_made_for, 2).length)
""",
    ),
    "cached_attention": Probe(
        "04",
        ("bases", "growing_cache"),
        CACHE
        + """
_layer = _filled(_quietly(lambda: MultiHeadAttention(6, 2)), _random)
_x = _draw(2, 9, 6)


def _attended(sizes):
    cache = GrowingCache(_made_for, 2)
    parts = [_layer(part, cache, layer) for part in _x.split(sizes, dim=1) for layer in (0, 1)]
    return [parts, cache.length, cache.keys, cache.values]


_show(lambda: _layer(_x))
_show(lambda: [_attended([9]), _attended([1] * 9), _attended([4, 2, 3])])
""",
    ),
    "cached_model": Probe(
        "04",
        ("bases", "growing_cache", "cached_attention", "cached_layer"),
        CACHED
        + """
_model = _model_of(DecoderOnlyTransformer)
_show(lambda: [_model(_ids)[0], _model(_ids)[1] is None])
"""
        + PATIENT
        + """
_past = _quietly(lambda: _model(_ids, use_cache=True)[1])
_show(lambda: [_past.length, _ends(lambda: _model(_ids[:, :1], _past, True))])
""",
    ),
    "decode_loop": Probe(
        "04",
        ("bases", "growing_cache", "cached_attention", "cached_layer", "cached_model"),
        CACHED
        + """
_model = _model_of(DecoderOnlyTransformer)
_fed = []
_model.register_forward_pre_hook(lambda module, given: _fed.append(given[0].size(1)))
_ways = [(_ids[:, :_cut], use_cache) for use_cache in (True, False)]
_show(lambda: [list(decode_loop(_model, ids, 5, way, temperature=0)) for ids, way in _ways])
_show(lambda: _fed)
_first = _quietly(lambda: next(iter(decode_loop(_model, _ids[:1, :4], 1, True, temperature=0))))
_stop = {"stop_token": int(_first), "temperature": 0}
_show(lambda: list(decode_loop(_model, _ids[:1, :4], 5, True, **_stop)))
""",
    ),
    "preallocated_cache": Probe(
        "04",
        ("bases",),
        CACHE
        + """
_show(lambda: _appended(PreallocatedCache(_made_for, 2), _portions))
_cache = _quietly(lambda: PreallocatedCache(_made_for, 2))
_place = _cache.keys.data_ptr(), _cache.values.data_ptr()
_show(lambda: _appended(_cache, _portions[::-1]) + [_cache.nbytes])
_show(lambda: _place == (_cache.keys.data_ptr(), _cache.values.data_ptr()))
_at = [k.data_ptr() for k, _ in [_cache.append(1, *map(torch.clone, _portions[0]))]]
_show(lambda: _at == [_cache.keys[1].data_ptr()])
""",
    ),
    **{
        f"patient_{number}": Probe(
            "05",
            (
                *("bases", "growing_cache", "cached_attention", "cached_layer", "cached_model"),
                *("patients", f"sick_{number}"),
            ),
            f"{CACHED}\n_model = _model_of(Cured{number})\n{PATIENT}",
        )
        for number in (1, 2, 3, 4)
    },
    "reorder": Probe(
        "05",
        ("bases", "growing_cache"),
        CACHE
        + """
_rows = torch.cat([torch.tensor([1, 0]), torch.randint(2, (_whole(1, 4),), generator=_random)])


def _reordered():
    cache = ReorderedCache(_made_for, 2)
    _appended(cache, _portions)
    cache.reorder(_rows)
    return [cache.batch_size, _appended(cache, [(k[_rows], v[_rows]) for k, v in _portions])]


_show(_reordered)
""",
    ),
}
