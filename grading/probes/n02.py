"""Probes of notebook 02."""

from .material import EMBEDDED, MODEL
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
""",
    ),
    "decoder_layer": Probe(
        "02",
        (*ATTENTION, "layer_norm", "feed_forward"),
        """
_share, _heads = _one_of(0.3, 0.7), _one_of(2, 3, 6)
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
_layer_there = _there(_layer)
_show(lambda: _elsewhere(lambda: _layer_there(_there(_x))))
""",
    ),
    "model": Probe(
        "02",
        (*ATTENTION, "layer_norm", "feed_forward", "decoder_layer"),
        MODEL
        + EMBEDDED
        + """
_show(lambda: sorted((name, list(p.shape)) for name, p in _model.named_parameters()))
_show(lambda: [_model(_ids)[0], _model(_ids[:, :1])[0], _model(_ids)[1] is None, _ids])
_show(lambda: _gradients(lambda: _model(_ids)[0], module=_model))
_usual = _filled(_quietly(lambda: DecoderOnlyTransformer(_shape[0], 12, 24, 5, 10)), _random)
_show(lambda: _usual(_ids)[0])
_dropping = _quietly(lambda: DecoderOnlyTransformer(*_shape, 3, _one_of(0.3, 0.7)))
_show(lambda: [_embedded(model, _shape[0]) for model in (_usual, _filled(_dropping, _random))])
_model_there = _there(_model)
_show(lambda: _elsewhere(lambda: _model_there(_there(_ids))[0]))
""",
    ),
}
