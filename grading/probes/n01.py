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
""",
    ),
    "causal_mask": Probe(
        "01",
        (),
        """
_sizes = [(n, n + _whole(1, 6)) for n in (1, _whole(2, 5), _whole(5, 9))] + [(7, 7), (1, 1)]
_show(lambda: [causal_mask(n, m) for n, m in _sizes])
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
_layer_there = _there(_layers[1])
_show(lambda: _elsewhere(lambda: _layer_there(_there(_x))))
""",
    ),
}
