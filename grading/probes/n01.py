"""Probes of notebook 01."""

from .shared import Probe

PROBES = {
    "softmax": Probe(
        "01",
        (),
        """
_x = 3 * _draw(3, 4, 5)
_masked = _x.clone()
_masked[0, 0], _masked[1, 2, : _whole(1, 5)] = -math.inf, -math.inf
_show(lambda: [softmax(_x), softmax(1000 * _x - 500), softmax(_masked), softmax(_x[0, 0])])
_show(lambda: [softmax(_x[0].T), softmax(_x[:, :, :1]), softmax(2**30 + _steps(2, 3)), _x])
_show(lambda: [softmax(_x - _x.amax(-1, keepdim=True)), softmax(_x - 2000)])
_show(lambda: [1e5 * (softmax(_x).sum(-1) - 1)])
_types = (torch.bfloat16, torch.float16, torch.float32)
_show(lambda: [str(softmax(_x.to(dtype)).dtype) for dtype in _types])


def _coarse(equal, dtype):
    # 1 / (2^n + 1) is a number of its own in 16 bits, 2^n + 1 is not.
    row = torch.full((2, equal + 40), -math.inf, dtype=dtype)
    row[:, torch.randperm(equal + 40, generator=_random)[:equal]] = _whole(-9, 9)
    return [f"{value:.8f}" for value in softmax(row).unique().tolist()]


_show(lambda: [_coarse(257, torch.bfloat16), _coarse(2049, torch.float16)])
_show(lambda: _gradients(softmax, _x))

# Long rows, many rows and dimensions; low scores that hide nothing; float32 and 16 bits.
_rise = torch.linspace(-9000, 9000, 1100 + _whole(0, 99)).double()
_show(lambda: [_digest(softmax(x)) for x in (_rise, _rise.flip(0), _draw(2, 1200), _draw(70, 3))])
_show(lambda: [softmax(_draw(2, 3, 2, 4)), softmax(_draw(2, 1, 2, 2, 3)), softmax(_spread(_x[0]))])
_show(lambda: [softmax(torch.full((2, 4), low).double()) for low in (-1e4, -1e9, -math.inf)])
_show(lambda: softmax(torch.full((3,), -math.inf).double()))
_show(lambda: [_alike(softmax, x) for x in (_x, _masked, _x + 1000, -_x, _masked[0, 0])])
_even = (_x * 4).round() / 4
_show(lambda: _alike(lambda x: _gradients(softmax, x), _x))
_halves = {"dtype": torch.bfloat16, "within": 0.05}
_show(lambda: [_alike(softmax, _even, **_halves)])
_show(lambda: [_alike(lambda x: _gradients(softmax, x), _even, **_halves)])
""",
    ),
    "causal_mask": Probe(
        "01",
        (),
        """
_sizes = [(n, n + _whole(1, 6)) for n in (1, _whole(2, 5), _whole(5, 9))] + [(7, 7), (1, 1)]
_show(lambda: [causal_mask(n, m) for n, m in _sizes])
_large = [(1, 1100 + _whole(0, 99)), (70 + _whole(0, 9), 300), (9, 3000 + _whole(0, 99))]
_large += [(130, 130), (256, 512), (1030, 1030)]
_show(lambda: [_digest(causal_mask(n, m)) for n, m in _large])
_show(lambda: [_elsewhere(lambda: causal_mask(n, n + 2, _FAR)) for n in (1, 4)])
""",
    ),
    "attention": Probe(
        "01",
        ("softmax", "causal_mask"),
        """
_q, _k, _v = _draw(2, 3, 4, 6), _draw(2, 3, 7, 6), _draw(2, 3, 7, 5)
_mask = torch.ones(4, 7, dtype=torch.bool).tril(_whole(0, 4))
_show(lambda: [attention_weights(_q, _k), attention_weights(_q, _k, _mask)])
_show(lambda: [attention(_q, _k, _v), attention(_q, _k, _v, _mask)])
_show(lambda: attention(_q[0, 0], _k[0, 0], _v[0, 0]))
_show(lambda: [attention(90 * _q, 90 * _k, _v, mask) for mask in (None, _mask)])
_show(lambda: attention(1e6 * _q.abs(), -1e6 * _k.abs(), _v, _mask))
_show(lambda: [_q, _k, _v, _mask])

# Scores so large that float32 cannot tell them apart.
_far, _near = torch.ones(2, 4).double(), 2**28 + _steps(3, 4)
_show(lambda: [attention_weights(_far, _near), attention(_far, _near, _v[0, 0, :3])])
_show(lambda: str(attention(_q.float(), _k.float(), _v.float()).dtype))
_show(lambda: _gradients(lambda *given: attention(*given, _mask), _q, _k, _v))

# Many keys, queries, rows and dimensions; masks that are not causal; float32.
_n, _keys = 70 + _whole(0, 9), 1100 + _whole(0, 99)
_many, _wide = [_draw(2, n, 5) for n in (_n, _keys, _keys)], [_draw(1, 3, 200) for _ in range(3)]
_seen = torch.rand(_n, _keys, generator=_random) < 0.5
_show(lambda: [_digest(attention(*_many, mask)) for mask in (None, _seen)])
_show(lambda: [_digest(attention_weights(*_many[:2], _seen)), _digest(attention(*_wide))])
_any = torch.rand(4, 4, generator=_random) < 0.6
_any.fill_diagonal_(True)
_rows, _dims = [_draw(6, 6, 4, 3) for _ in range(3)], [_draw(2, 1, 2, 4, 2) for _ in range(3)]
_show(lambda: [_digest(attention(*x, mask)) for x in (_rows, _dims) for mask in (None, _any)])
_show(lambda: attention(*map(_spread, (_q, _k, _v)), _mask))
_show(lambda: [_alike(attention, *x, m) for x, m in (((_q, _k, _v), _mask), (_many, _seen))])
_show(lambda: [_alike(attention_weights, _q, _k, _mask), _alike(attention, -_q, _k, _v)])
_show(lambda: _alike(lambda *x: _gradients(lambda *y: attention(*y, _mask), *x), _q, _k, _v))
_given = [_there(x) for x in (_q, _k, _v, _mask)]
_show(lambda: _elsewhere(lambda: [attention(*_given), attention_weights(*_given[:2])]))
""",
    ),
    "multi_head": Probe(
        "01",
        ("softmax", "causal_mask", "attention"),
        """
_made = _quietly(lambda: [MultiHeadAttention(12, heads) for heads in (1, 3, 12)])
_made.append(_quietly(lambda: MultiHeadAttention(12)))
_layers = [_filled(layer, _random) for layer in _made]
_x = _draw(2, _whole(4, 8), 12)
_show(lambda: [layer(_x) for layer in _layers] + [_layers[1](_x[:1, :1]), _x])
_show(lambda: copy.deepcopy(_layers[1]).train()(_x))
_show(lambda: [_layers[1].split_heads(_x), _layers[1].merge_heads(_layers[1].split_heads(_x))])
_show(lambda: sorted((name, list(p.shape)) for name, p in _layers[1].named_parameters()))
_show(lambda: _gradients(_layers[1], _x, module=_layers[1]))

# Long, short and long again, many rows and heads; other numbers the second time; float32.
_long, _rows = _draw(1, 1100 + _whole(0, 99), 12), _draw(6, 70, 12)
_heads = _filled(_quietly(lambda: MultiHeadAttention(48, 24)), _random)
_show(lambda: [_digest(_layers[1](x)) for x in (_rows, _x[:, :2], _long, -_rows, _spread(_x))])
_show(lambda: [_digest(_heads(_draw(2, 5, 48))), _digest(copy.deepcopy(_layers[1]).train()(_rows))])
_low = _of_both(_layers[1])
_show(lambda: [_alike(_low, x) for x in (_x, -_x, _rows)])
_show(lambda: _alike(lambda x: _gradients(_low, x), _x))
_filled(_layers[1], _random)
_show(lambda: _layers[1](_x))
_layer_there = _there(_layers[1])
_show(lambda: _elsewhere(lambda: _layer_there(_there(_x))))
""",
    ),
}
