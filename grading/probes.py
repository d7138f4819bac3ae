"""What is printed of an answer when it is graded, on inputs that are drawn for each grading run.

A probe is code that runs in the student's kernel after the answer, with `SEED` replaced by a
number. It prints values, and nothing in that process knows which values are right: the master's are
compared outside. Numbers are in float64 and rounded to 4 digits (float32 to 2), so that answers
written another way agree.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """How to grade one exercise: which of the course's answers it stands on, and what to print."""

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
        "05",
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
        "05",
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
        "05",
        ("causal_mask", "attention", "multi_head", "feed_forward", "decoder_layer", "model"),
        MODEL
        + """
_model.num_layers = _shape[3]
_sizes = [(1, 1), (1, _whole(2, 16)), (_whole(2, 6), _whole(6, 16))]
_show(lambda: [operations(_model, n, t) for n, t in _sizes])
""",
    ),
    "exponent": Probe(
        "05",
        (),
        """
_tokens = np.array([10.0, 20.0, 50.0, 100.0, 500.0])
_times = 0.01 * _tokens ** _whole(1, 4) * np.exp(_draw(5).numpy() / 5)
_show(lambda: exponent(_tokens, _times))
""",
    ),
}
