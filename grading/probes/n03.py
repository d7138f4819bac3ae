"""Probes of notebook 03."""

from .material import MODEL, TABLE
from .shared import Probe

BUILT = (
    *("softmax", "causal_mask", "attention", "multi_head"),
    *("feed_forward", "decoder_layer", "model"),
)

PROBES = {
    "keep_top_k": Probe(
        "03",
        ("softmax",),
        """
_x = _draw(3, 9)
_tied = _x.round()
_mixed = torch.stack([_x[0], 1000 * _x[1], _x[2] - 500])
_show(lambda: [keep_top_k(_x, k) for k in (1, _whole(2, 8), 9, 12)])
_show(lambda: [keep_top_k(_tied, k) for k in (1, 2, 4)] + [_x])
_show(lambda: [keep_top_k(_mixed, 3), keep_top_k(keep_top_k(_x, 4), 2), keep_top_k(_x[:1], 2)])
_show(lambda: [str(keep_top_k(_x.float(), 2).dtype)])
_show(lambda: _elsewhere(lambda: keep_top_k(_there(_x), 2)))
""",
    ),
    "keep_top_p": Probe(
        "03",
        ("softmax", "keep_top_k"),
        """
_x = 2 * _draw(3, 9)
_mixed = torch.stack([_x[0], 100 * _x[1], _x[2] / 9 - 500])
_cut = _x.masked_fill(_x < _x.amax(-1, keepdim=True) - 2, -math.inf)
_show(lambda: [keep_top_p(_x, p) for p in (0.05, 0.3 + 0.01 * _whole(0, 30), 0.9, 0.995)] + [_x])
_show(lambda: [keep_top_p(_mixed, 0.7), keep_top_p(_cut, 0.8), keep_top_p(_x[:1], 0.6)])
_show(lambda: keep_top_p(_x / 9, 1.0))
_show(lambda: (keep_top_p(torch.zeros(1, 2).double(), 0.5) > -math.inf).sum())
_show(lambda: [str(keep_top_p(_x.float(), 0.5).dtype)])
_show(lambda: _elsewhere(lambda: keep_top_p(_there(_x), 0.5)))
""",
    ),
    "next_token": Probe(
        "03",
        ("softmax", "keep_top_k", "keep_top_p"),
        """
# Shares in eighths: those of 5,000 rows are 8 standard deviations from an edge, and more.
_four, _six = torch.tensor([4.0, 2, 1, 1, 0, 0]), torch.tensor([9.0, 3, 2, 1, 1, 0])
_heat, _level = _one_of(0.5, 1.5, 2.0, 3.0), _one_of(-9.0, 4.0)
_orders = [torch.randperm(6, generator=_random) for _ in range(2)]
_seed = _whole(0, 10**6)


def _logits(weights, heat, kinds=1):
    row = heat * (weights / weights.sum()).double().log().clamp(min=-1e4) + _level
    return torch.stack([row[order] for order in _orders[:kinds]]).repeat(5000, 1)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def _shares(weights, *heat, kinds=1, **options):
    logits = _logits(weights, *(heat or [1.0]), kinds)
    tokens = next_token(logits, *heat, generator=_seeded(_seed), **options)
    counts = [torch.bincount(tokens[kind::kinds], minlength=6).double() for kind in range(kinds)]
    return [tokens.dtype == torch.int64, list(tokens.shape)] + [
        (8 * count / count.sum() + 0.5).floor() for count in counts
    ]


_x = _draw(6, 11)
_show(lambda: [next_token(_x, 0), next_token(_x[:1], 0), next_token(_x, 2.0, top_k=1), _x])
_show(lambda: [list(next_token(x, 1.5, 3, 0.9).shape) for x in (_x, _x[:1], _x[:, :1])])
_show(lambda: [next_token(_x, 0, top_k=3, top_p=0.4), next_token(_x, 0.0, generator=_seeded(1))])
_show(lambda: [_shares(_four, _heat, kinds=2), _shares(_four)])
_show(lambda: [_shares(_six, _heat, top_k=2), _shares(_six, _heat, top_p=0.7)])
_show(lambda: _shares(_six, _heat, top_k=2, top_p=0.7))


def _same(first, second, **options):
    # Whether two draws of 99 tokens agree.
    logits, both = _logits(_four, 2.0)[:99], (first, second)
    tokens = [next_token(logits, 2.0, generator=generator, **options) for generator in both]
    return bool((tokens[0] == tokens[1]).all())


_one = _seeded(_seed)
_show(lambda: [_same(_seeded(_seed), _seeded(_seed)), _same(_seeded(_seed), _seeded(_seed + 1))])
_show(lambda: [_same(_one, _one), _same(None, None), _same(_seeded(_seed), None)])
_cuts = [{"top_k": 4}, {"top_p": 0.9}, {"top_k": 5, "top_p": 0.95}]
_show(lambda: [_same(_seeded(_seed), _seeded(_seed), **cut) for cut in _cuts])
_show(lambda: [_same(None, None, **cut) for cut in _cuts])
""",
    ),
    "generate": Probe(
        "03",
        (*BUILT, "keep_top_k", "keep_top_p", "next_token"),
        MODEL
        + TABLE
        + """
_show(lambda: [generate(_model, _ids[:, :3], 6, temperature=0), generate(_model, _ids[:1], 0)])
_show(lambda: [generate(_model, _ids[:, :1], 5, temperature=3.0, top_k=1), _ids])
_show(lambda: generate(_model, _ids[:1, :2], 4, temperature=2.0, top_p=1e-6))
_fed = _inputs(_model)
_show(lambda: list(generate(_model, _ids[:, :3], 4, 5.0, generator=_random).shape))
_show(lambda: [list(x.shape) for x in _fed])


def _drawn(*heat, seed=1, **options):
    model = _table(heat[0] if heat else 1.0)
    generator = None if seed is None else _seeded(seed)
    return generate(model, _starts, 3, *heat, generator=generator, **options)


_show(lambda: [_shares(_drawn(), 1), _shares(_drawn(_heat), 1), _shares(_drawn(_heat, top_k=4), 1)])
_show(lambda: len(generate(_even_table(), _zeros, 1)[:, 1].unique()))
_seeds = [(5, 5), (5, 6), (5, None), (None, None)]
_show(lambda: [bool((_drawn(seed=a) == _drawn(seed=b)).all()) for a, b in _seeds])
""",
    ),
    "beam_search": Probe(
        "03",
        (*BUILT, "keep_top_k", "keep_top_p", "next_token"),
        MODEL
        + """
_show(lambda: [beam_search(_model, _ids[:1], 3, beams)[0] for beams in (1, 2, 5, 40)])
_show(lambda: [beam_search(_model, _ids[:1, :1], 1, beams)[0] for beams in (3, 99)] + [_ids])


class _Odds(DecoderOnlyTransformer):
    # Its probabilities are 64ths; which, depends on the last two tokens and on the position.
    def forward(self, input_ids):
        where = torch.arange(input_ids.size(1))
        table = _odds[where, F.pad(input_ids, (1, 0))[:, :-1], input_ids]
        return table.log() + 0.5 * where[:, None], None


def _all_odds(first):
    # Those of all texts of one, two and three new tokens.
    one = _odds[1, first[0], first[1]]
    two = one[:, None] * _odds[2, first[1]]
    return [one, two, two[..., None] * _odds[3]]


def _differ(numbers):
    return len(numbers.flatten().unique()) == numbers.numel()


_odds, _first = torch.ones(5, 3, 3, 3).double(), [_whole(0, 3), _whole(0, 3)]
while not all(map(_differ, _all_odds(_first))):
    _parts = torch.rand(5, 3, 3, 3, generator=_random).double() + 0.1
    _odds = (60 * _parts / _parts.sum(-1, keepdim=True)).floor() + 1
    _odds[..., 0] += 64 - _odds.sum(-1)
_made = _quietly(lambda: _Odds(3, 6, 6, 1, 9).double().eval())


def _searched(new, beams):
    ids, scores = beam_search(_made, torch.tensor([_first]), new, beams)
    return [ids.tolist(), list(scores.shape), [math.exp(s) * 64**new for s in scores.tolist()]]


def _to_whole(found):
    return [found[0], found[1], [math.floor(x + 0.5) for x in found[2]]]


_show(lambda: [_to_whole(_searched(new, beams)) for new in (1, 2, 3) for beams in (1, 2, 3, 70)])
_model_there = _there(_model)
_show(lambda: _elsewhere(lambda: beam_search(_model_there, _there(_ids)[:1], 2, 3)))
""",
    ),
}
