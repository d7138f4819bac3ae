"""Probes of notebook 03."""

from .material import LARGE, MODEL, TABLE
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

# Many words and rows, numbers far below zero and close to each other; float32.
_wide, _low = _draw(6, 1100 + _whole(0, 99)), [_x - 1e9, _x - 1e12, -2000 + _x / 1000]
_show(lambda: [_digest(keep_top_k(_wide, k)) for k in (1, _whole(20, 40), 60, 300, 1050, 5000)])
_show(lambda: [keep_top_k(x, 3) - x.amax() for x in _low] + [keep_top_k(_spread(_x), 3)])
_show(lambda: [_alike(keep_top_k, x, k) for x in (3 * _x, 9 * _wide) for k in (3, 30)])
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

# Many words and rows, sure and unsure, numbers far below zero; float32.
_wide, _low = _draw(6, 1100 + _whole(0, 99)), [_x - 1e9, _x - 1e12]
_shares = (1e-6, 0.03, 0.3 + 0.01 * _whole(0, 30), 0.9, 0.995)
_show(lambda: [_digest(keep_top_p(size * _wide, p)) for p in _shares for size in (0.1, 4)])
_show(lambda: _digest(keep_top_p(0.1 * _wide, 1.0)))
_show(lambda: [keep_top_p(x, 0.7) - x.amax() for x in _low] + [keep_top_p(_spread(_x), 0.8)])
_show(lambda: [_alike(keep_top_p, x, p) for x in (3 * _x, _x - 20) for p in (0.4, 0.8)])
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
_heats = (0.1, 0.35, _heat, 8.0)
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
_show(lambda: [[_shares(_four, heat, kinds=2) for heat in _heats], _shares(_four)])
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


def _kept(x, **options):
    # How many words come up in 2,000 draws, and the least of them.
    found = next_token(x.expand(2000, -1), 1.0, generator=_seeded(_seed), **options).unique()
    return [len(found), int(found.min())]


def _of_one_row(seed):
    generator = _seeded(seed)
    return [int(next_token(_flat, 1.0, generator=generator)) for _ in range(9)]


# Many words, cuts that take little, one row at a time, and numbers that only float32 tells apart.
_fine, _flat = 0.01 * torch.arange(12.0)[None], 0.001 * torch.arange(1100.0)[None]
_tail = torch.tensor([[0.025, 0.075, 0.2, 0.3, 0.4]]).log() - 3000
_show(lambda: [_kept(_fine, top_k=8), _kept(_fine), _kept(_tail, top_p=0.97), _kept(_tail)])
_show(lambda: [_kept(F.pad(_fine, (1000, 0), value=low)) for low in (-1e4, -math.inf)])
_show(lambda: _kept(F.pad(_tail, (1000, 0), value=-1e9), top_k=4))
_show(lambda: _kept(_flat, top_k=30)[1] > 1000)
_show(lambda: [_of_one_row(_seed) == _of_one_row(_seed), len(set(_of_one_row(_seed))) > 2])
_near = 1000 + torch.stack([torch.randperm(1100, generator=_random) / 64 for _ in range(2)])
_show(lambda: [next_token(_near.to(dtype), 0) for dtype in (torch.float32, torch.float64)])
_three = _x.float(), _x[:1].float(), _near
_given = [copy.deepcopy(x) for x in _three]
_show(lambda: [list(next_token(x, 2.0, 5, 0.9).shape) for x in _given])
_show(lambda: [x.tolist() == y.tolist() for x, y in zip(_given, _three, strict=True)])
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
        + LARGE
        + """
_show(lambda: [generate(_model, _ids[:, :3], 6, temperature=0), generate(_model, _ids[:1], 0)])
_show(lambda: [generate(_model, _ids[:, :1], 5, temperature=3.0, top_k=1), _ids])
_show(lambda: generate(_model, _ids[:1, :2], 4, temperature=2.0, top_p=1e-6))
_fed = _inputs(_model)
_show(lambda: list(generate(_model, _ids[:, :3], 4, 5.0, generator=_random).shape))
_show(lambda: [list(x.shape) for x in _fed])


def _drawn(*heat, seed=1, new=3, **options):
    model = _table(heat[0] if heat else 1.0)
    generator = None if seed is None else _seeded(seed)
    return generate(model, _starts, new, *heat, generator=generator, **options)


_show(lambda: [_shares(_drawn(), 1), _shares(_drawn(_heat), 1), _shares(_drawn(_heat, top_k=4), 1)])
_show(lambda: len(generate(_even_table(), _zeros, 1)[:, 1].unique()))
_seeds = [(5, 5), (5, 6), (5, None), (None, None)]
_show(lambda: [bool((_drawn(seed=a) == _drawn(seed=b)).all()) for a, b in _seeds])

# Long texts, many rows, words and new words; hot, and cut late; one row; the same generator twice.
_show(lambda: [generate(_large, ids, 3, temperature=0)[:, -9:] for ids in (_text, _rows)])
_show(lambda: [generate(_large, _short[:n], 30, temperature=0) for n in (1, 2)] + [_rows[:, :3]])
_show(lambda: _shares(_drawn(9.0, new=12)[:, 8:], 1))
_even = _even_table()
_show(lambda: len(generate(_even, _zeros, 9, top_p=0.3, generator=_seeded(2))[:, 8:].unique()))
_show(lambda: len(generate(_even, _zeros, 9, top_k=5, generator=_seeded(2))[:, 8:].unique()))


def _told(*generators, rows=1, **options):
    told = [generate(_even, _zeros[:rows], 20, generator=one, **options) for one in generators]
    return bool((told[0] == told[1]).all())


_one = _seeded(_whole(0, 10**6))
_cuts = {}, {"top_k": 11}, {"top_p": 0.97}
_show(lambda: [_told(_seeded(4), _seeded(4), rows=n, **cut) for n in (1, 5) for cut in _cuts])
_show(lambda: [_told(_seeded(4), _seeded(5), rows=n, **cut) for n in (1, 5) for cut in _cuts])
_show(lambda: [_told(_one, _one), generate(_large, _short, 0), _large.training, _model.training])
""",
    ),
    "beam_search": Probe(
        "03",
        (*BUILT, "keep_top_k", "keep_top_p", "next_token"),
        MODEL
        + LARGE
        + """
_show(lambda: [beam_search(_model, _ids[:1], 3, beams)[0] for beams in (1, 2, 5, 40)])
_show(lambda: [beam_search(_model, _ids[:1, :1], 1, beams)[0] for beams in (3, 99)] + [_ids])


class _Odds(DecoderOnlyTransformer):
    # Its probabilities are 64ths; which, depends on the last two tokens and on the position.
    def forward(self, input_ids):
        where = torch.arange(input_ids.size(1))
        table = _odds[where, F.pad(input_ids, (1, 0))[:, :-1], input_ids]
        return table.log() + 0.5 * where[:, None] + _level, None


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
_made, _level = _quietly(lambda: _Odds(3, 6, 6, 1, 9).double().eval()), 0.0


def _searched(new, beams):
    ids, scores = beam_search(_made, torch.tensor([_first]), new, beams)
    return [ids.tolist(), list(scores.shape), [math.exp(s) * 64**new for s in scores.tolist()]]


def _to_whole(found):
    return [found[0], found[1], [math.floor(x + 0.5) for x in found[2]]]


_show(lambda: [_to_whole(_searched(new, beams)) for new in (1, 2, 3) for beams in (1, 2, 3, 70)])

# Long, many new words, many beams and words; logits far below zero.
_show(lambda: [beam_search(_large, ids[:1], 2, 6)[0][:, -9:] for ids in (_text, _rows)])
_show(lambda: [beam_search(_large, _short[:1], 12, 3)[0], beam_search(_large, _short[1:], 6, 1)[0]])
_show(lambda: beam_search(_large, _short[:1], 1, 100)[0][:, -1].sort().values)
_show(lambda: beam_search(_large, _short[1:], 2, 70)[0][:, -2:].sum(1).sort().values)
for _level in (-200.0, -5000.0):
    _show(lambda: [_to_whole(_searched(1, beams)) for beams in (2, 3)])
_show(lambda: [list(x.shape) for x in beam_search(_large, _short[:1], 0, 3)] + [_large.training])
_model_there = _there(_model)
_show(lambda: _elsewhere(lambda: beam_search(_model_there, _there(_ids)[:1], 2, 3)))
""",
    ),
}
