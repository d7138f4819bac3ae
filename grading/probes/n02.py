"""Probes of notebook 02."""

from .material import EMBEDDED, LARGE, MODEL
from .shared import Probe

ATTENTION = ("softmax", "causal_mask", "attention", "multi_head")

PROBES = {
    "layer_norm": Probe(
        "02",
        (),
        """
_x, _weight, _bias = 3 * _draw(2, 5, 8) + 2, _draw(8), _draw(8)
_mixed = torch.stack([0 * _x[0, 0], 1e-3 * _x[0, 1], _x[0, 2] + 1000, 0 * _x[0, 3] + 7])
_show(lambda: [layer_norm(_x, _weight, _bias), layer_norm(_x[0], _weight, _bias, 0.5)])
_show(lambda: [layer_norm(1e-3 * _x, _weight, _bias), layer_norm(0 * _x, _weight, _bias)])
_show(lambda: [layer_norm(_mixed, _weight, _bias), layer_norm(_x[0, 0], _weight, _bias, eps=2.0)])
_show(lambda: layer_norm(2**24 + _steps(3, 8), _weight, _bias))
_show(lambda: [str(layer_norm(_x.float(), _weight.float(), _bias.float()).dtype)])
_show(lambda: [_x, _weight, _bias])
_show(lambda: _gradients(layer_norm, _x, _weight, _bias))

# Wide, many rows and dimensions, far and tiny; another weight the second time; float32.
_wide = [_draw(2, 300 + _whole(0, 99))] * 3
_show(lambda: _digest(layer_norm(_wide[0], _wide[1][0], _wide[2][1])))
_show(lambda: [layer_norm(x, _weight, _bias) for x in (_draw(2, 1, 2, 8), _draw(1, 2, 1, 2, 8))])
_show(lambda: _digest(layer_norm(_draw(70, 3, 8), _weight, _bias)))
_show(lambda: layer_norm(_draw(2, 1), _draw(1), _draw(1)))
_show(lambda: [layer_norm(size * _x[0], _weight, _bias) for size in (1e6, 1e-4)])
_show(lambda: layer_norm(1e-6 * _x[0], _weight, _bias, 1e-12))
_show(lambda: layer_norm(_spread(_x), _spread(_weight), _spread(_bias)))
_given = [(_x, _weight, _bias), (-_x, _bias, _weight), (_x[0] + 30, _weight, _bias)]
_show(lambda: [_alike(layer_norm, *given) for given in _given])
_show(lambda: _alike(lambda *given: _gradients(layer_norm, *given), _x, _weight, _bias))
""",
    ),
    "feed_forward": Probe(
        "02",
        (),
        """
_part = _filled(_quietly(lambda: FeedForward(6, 18)), _random)
_x = _draw(2, 4, 6)
_show(lambda: sorted((name, list(p.shape)) for name, p in _part.named_parameters()))
_show(lambda: [_part(_x), _part(_x[0]), _part(0 * _x), _part(50 * _x), _x])
_show(lambda: _gradients(_part, _x, module=_part))

# Many rows, positions and dimensions, large; other numbers the second time; in training; float32.
_wide = _filled(_quietly(lambda: FeedForward(6, 100 + _whole(0, 9))), _random)
_given = _draw(6, 5, 6), _draw(2, 70, 6), _draw(2, 2, 3, 6), -_x, 1e5 * _x, _spread(_x), _x[0, 0]
_show(lambda: [_digest(_part(x)) for x in _given])
_show(lambda: [_wide(_x), copy.deepcopy(_part).train()(_x)])
_low = _of_both(_part)
_show(lambda: [_alike(_low, x) for x in (_x, -_x)])
_show(lambda: _alike(lambda x: _gradients(_low, x), _x))
_filled(_part, _random)
_show(lambda: _part(_x))
""",
    ),
    "decoder_layer": Probe(
        "02",
        (*ATTENTION, "layer_norm", "feed_forward"),
        """
_share, _heads = 0.7, _one_of(2, 3, 6)
_layer = _filled(_quietly(lambda: DecoderLayer(12, 20, _heads, _share)), _random)
_plain_one = _filled(_quietly(lambda: DecoderLayer(12, 20)), _random)
_x, _many = _draw(2, 5, 12), _draw(100, 50, 12)
_show(lambda: sorted((name, list(p.shape)) for name, p in _layer.named_parameters()))
_show(lambda: [_layer(_x), _layer(_x[:1, :1]), _plain_one(_x), _x])
_show(lambda: _gradients(_layer, _x, module=_layer))


def _only(silent):
    # What the layer adds, and drops from, when one of its two parts adds nothing.
    found = []
    for layer in (_layer, _plain_one):
        layer = copy.deepcopy(layer)
        for parameter in getattr(layer, silent).parameters():
            parameter.data.zero_()
        found.append(_dropout(layer, lambda: layer(_many) - _many))
    return found


_show(lambda: [_only("feed_forward"), _only("attention")])


def _both(share):
    # How often neither part adds anything, where each adds the same to all positions.
    layer = _filled(_quietly(lambda: DecoderLayer(12, 20, 2, share)), _random).train()
    for parameter in (layer.norm1.weight, layer.feed_forward.fc2.weight):
        parameter.data.zero_()
    return int((layer(_many) == _many).double().mean() / 0.04)


# What both dropouts drop, and much of it; long, many rows, heads and units; again; float32.
_show(lambda: [_both(0.3), _both(0.3)])
_wide = _filled(_quietly(lambda: DecoderLayer(48, 100, 24)), _random)
_given = _draw(6, 5, 12), _draw(2, 70, 12), _draw(1, 600 + _whole(0, 99), 12), -_x, _spread(_x)
_show(lambda: [_digest(_layer(x)) for x in _given])
_show(lambda: [_digest(_wide(_draw(2, 5, 48)))])
_low = _of_both(_layer)
_show(lambda: [_alike(_low, x) for x in (_x, -_x)])
_show(lambda: _alike(lambda x: _gradients(_low, x), _x))
_filled(_layer, _random)
_show(lambda: _layer(_x))
_layer_there = _there(_layer)
_show(lambda: _elsewhere(lambda: _layer_there(_there(_x))))
""",
    ),
    "model": Probe(
        "02",
        (*ATTENTION, "layer_norm", "feed_forward", "decoder_layer"),
        MODEL
        + LARGE
        + EMBEDDED
        + """
_show(lambda: sorted((name, list(p.shape)) for name, p in _model.named_parameters()))
_show(lambda: [_model(_ids)[0], _model(_ids[:, :1])[0], _model(_ids)[1] is None, _ids])
_show(lambda: _gradients(lambda: _model(_ids)[0], module=_model))
_usual = _filled(_quietly(lambda: DecoderOnlyTransformer(_shape[0], 12, 24, 5, 10)), _random)
_show(lambda: _usual(_ids)[0])
_dropping = _quietly(lambda: DecoderOnlyTransformer(*_shape, 3, 0.7))
_show(lambda: [_embedded(model, _shape[0]) for model in (_usual, _filled(_dropping, _random))])

# Long, many rows, words and layers; other ids and other numbers the second time; float32.
_show(lambda: [_digest(_deep(_short)[0]), _digest(_large(_short)[0]), _digest(_large(_text)[0])])
_show(lambda: [_digest(_large(_rows)[0]), _digest(_large(_rows.flip(1))[0])])
_show(lambda: _large(_short[:1, :1])[1] is None)
_low = copy.deepcopy(_model).float()
_show(lambda: _far_off(_low(_ids)[0], _model(_ids)[0], 1e-3))
_filled(_model, _random)
_show(lambda: _model(_ids)[0])
_model_there = _there(_model)
_show(lambda: _elsewhere(lambda: _model_there(_there(_ids))[0]))
""",
    ),
}
