"""Models, tables and caches that several probes use; they run in the student's kernel."""

TABLE = """
class _Table(DecoderOnlyTransformer):
    # Its logits come from a table, by the sum of the whole text and its last token.
    def __init__(self, table):
        super().__init__(len(table), 6, 6, 1, 99)
        self.table = table
        self.double().eval()

    def forward(self, input_ids, past_kv=None, use_cache=False):
        text = input_ids if past_kv is None else torch.cat([past_kv, input_ids], dim=1)
        logits = self.table[text.cumsum(1) % len(self.table), text]
        logits = logits[:, -input_ids.size(1) :]
        return logits, text if use_cache else None


# The next token is drawn from quarters: shares are 9 standard deviations and more from an edge.
_quarters = torch.tensor([[2, 1, 1, 0], [0, 2, 1, 1], [1, 0, 1, 2], [3.75, 0.25, 0, 0]])
_quarters = _quarters[torch.randperm(4, generator=_random)][:, torch.randperm(4, generator=_random)]
_heat, _level = _one_of(3.0, 4.0, 5.0), _one_of(-9.0, -30.0)


def _table(heat):
    logits = heat * (_quarters / 4).double().log().clamp(min=-1e4) + _level
    return _quietly(lambda: _Table(logits.expand(4, 4, 4).clone()))


def _even_table():
    # Twelve tokens, each a little likelier than the one before it.
    return _quietly(lambda: _Table((0.01 * torch.arange(12.0)).double().expand(12, 12, 12)))


def _shares(ids, prompt_len):
    # How often, in quarters, each token follows each other one in what is new.
    pairs = (4 * ids[:, prompt_len - 1 : -1] + ids[:, prompt_len:]).flatten()
    counts = torch.bincount(pairs, minlength=16).view(4, 4).double()
    return (4 * counts / counts.sum(1, keepdim=True) + 0.5).floor()


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


_starts, _zeros = torch.arange(4).repeat(800)[:, None], torch.zeros(600, 1, dtype=torch.long)
"""

MODEL = """
_shape = (_whole(13, 20), 12, 24, _one_of(1, 2, 4), 10)
_model = _filled(_quietly(lambda: DecoderOnlyTransformer(*_shape, 3, 0.0)), _random)
_ids = torch.randint(_shape[0], (2, _whole(3, 9)), generator=_random)
"""

LARGE = """
def _made(num_layers, num_heads=3, vocab_size=120, room=1200):
    # What is likeliest depends on the text: no word is preferred wherever it is.
    made = _quietly(lambda: DecoderOnlyTransformer(vocab_size, 12, 24, num_layers, room, num_heads))
    _filled(made, _random)
    for name, parameter in made.named_parameters():
        parameter.data *= 0 if name.endswith("bias") else 5 if "embedding" in name else 1
    return made


# Room for long texts, many words, many layers.
_large, _deep = _made(2), _made(7)
_text = torch.randint(120, (1, 1100 + _whole(0, 90)), generator=_random)
_rows, _short = (torch.randint(120, n, generator=_random) for n in ((6, 70), (2, 5)))
_text[0, -3:], _rows[:, 1], _short[:, 1] = 119, 118, 117
"""

EMBEDDED = """
def _embedded(model, vocab_size, **options):
    # What comes to the first layer is dropped from; what leaves the last one is not. The layers
    # add nothing here.
    seen, ids = _inputs(model.layers[0]), torch.randint(vocab_size, (500, 10), generator=_random)
    for parameter in model.layers.parameters():
        parameter.data.zero_()

    def embedded():
        logits = model(ids, **options)[0]
        return seen[-1], model.output_projection(model.norm(seen[-1])) - logits

    found = _dropout(model, lambda: embedded()[0])
    model.train()
    return [*found, embedded()[1].abs().max()]
"""

CACHE = """
# Single tokens and several at once, whatever the seed; only their order is drawn.
_sizes = [(1, 1, 4, 5)[place] for place in torch.randperm(4, generator=_random)]
_portions = [(_draw(2, 3, n, 2), _draw(2, 3, n, 2)) for n in _sizes]


def _made_for(num_layers=3, dtype=torch.float64, device=torch.device("cpu"), room=25):
    return SimpleNamespace(
        num_layers=num_layers, num_heads=3, d_head=2, max_seq_len=room, dtype=dtype, device=device
    )


def _appended(cache, portions, num_layers=3):
    found = []
    for k, v in portions:
        for layer in range(num_layers):
            found.append(cache.append(layer, k + layer, v - layer))
        found.append([cache.length, cache.batch_size, cache.nbytes])
    return found


def _in_turns(kind, batch_size):
    # Two caches, and a third that begins when the others are done.
    caches = [kind(_made_for(), batch_size) for _ in range(2)]
    found = [
        _appended(cache, [(k * sign, v * sign)])
        for k, v in _portions
        for sign, cache in zip((1, -1), caches, strict=True)
    ]
    return found + [_appended(kind(_made_for(), batch_size), _portions[:1])]


def _in_16_bits(kind):
    cache = kind(_made_for(dtype=torch.bfloat16), 2)
    found = [cache.append(1, k.bfloat16(), v.bfloat16()) for k, v in _portions]
    return [[str(x.dtype) for x in pair] for pair in found] + [pair[1].double() for pair in found]


def _filled_up(kind, dtype=torch.float64, base=2.0**30):
    # Many layers, rows and positions: numbers that only this dtype tells apart.
    cache, found = kind(_made_for(6, dtype, room=1200), 5), []
    for n in (3, 1, 1000 + _whole(0, 99), 1, 70, 1):
        for layer in range(6):
            k = base + _steps(5, 3, n, 2).to(dtype)
            keys, values = cache.append(layer, _spread(k), layer - k)
            found.append([_digest(keys - base), _digest(values + base)])
    return [found, cache.length, cache.nbytes]


def _one_by_one(kind, number=140):
    # What the last of many appends finds, in a cache of one row and one layer.
    cache, all_k = kind(_made_for(1, room=200), 1), _draw(1, 3, number, 2)
    for k in all_k.split(1, dim=2):
        keys, values = cache.append(0, k, -k)
    return [_digest(keys), _digest(values), cache.length]


def _filled_many(kind):
    _show(lambda: [_filled_up(kind), _one_by_one(kind)])
    _show(lambda: _filled_up(kind, torch.float32, 0.0))


def _of_another_device(kind):
    given = [(_there(k), _there(v)) for k, v in _portions]

    def used():
        cache = kind(_made_for(device=_FAR), 2)
        return [x for k, v in given for x in cache.append(0, k, v)]

    return _elsewhere(used)
"""

CACHED = """
_shape = (_whole(13, 20), 12, 24)
_ids = torch.randint(_shape[0], (2, 16), generator=_random)
_cut = _whole(2, 7)


def _model_of(made, num_layers, vocab_size=None, room=16, num_heads=3):
    shape = vocab_size or _shape[0], 12, 24, num_layers, room, num_heads, 0.0
    return _filled(_quietly(lambda: made(*shape)), _random)


def _ends(compute):
    try:
        compute()
        return "it ran"
    except ValueError:
        return "ValueError"
"""

FEEDINGS = """
def _in_chunks(model, ids, sizes):
    past, found = None, []
    for part in ids.split(sizes, dim=1):
        logits, past = model(part, past_kv=past, use_cache=True)
        found.append(logits)
    return [*found, past.length]


def _read_in_turns(model, ids):
    # Three readers word by word, one without a cache in between, and one who begins later.
    pasts, found = [None, None, None], []
    for at in range(4):
        for reader, shift in enumerate((0, 3, 7)):
            rows = ids[: 1 if reader == 2 else 2, at + shift : at + shift + 1]
            logits, pasts[reader] = model(rows, past_kv=pasts[reader], use_cache=True)
            found.append(logits)
        found.append(model(ids[:, : at + 1])[0])
    return found + [model(ids[:, 9:], use_cache=True)[0], [past.length for past in pasts]]


def _fed(model, ids):
    _show(lambda: _in_chunks(model, ids, [_cut, 1, 1, 3, 10 - _cut, 1]))
    _show(lambda: _in_chunks(model, ids.flip(1), [_cut, 2, 14 - _cut]))
    _show(lambda: _in_chunks(model, ids[:1], [1, 1, 1, 3, 10]))
    _show(lambda: _in_chunks(model, ids[:1], [16]))
    _show(lambda: _read_in_turns(model, ids))
    model_there, ids_there = _there(model), _there(ids)
    _show(lambda: _elsewhere(lambda: _in_chunks(model_there, ids_there, [_cut, 1, 15 - _cut])))


def _kept_open(model, ids):
    # Many readers at a time.
    pasts = [model(ids[:, n : n + 2], use_cache=True)[1] for n in range(70)]
    found = [model(ids[:, n : n + 1], past, True)[0] for n, past in enumerate(pasts)]
    return [torch.cat(found), [past.length for past in pasts]]


def _long_fed(made):
    # Long texts, many rows, words, layers and heads; in training, where nothing drops; float32.
    model = _model_of(made, 2, 120, 1200)
    text, rows = (torch.randint(120, n, generator=_random) for n in ((2, 1200), (5, 90)))
    text[:, 5], rows[:, 3] = 119, 118
    sizes = [1, 1000 + _whole(0, 29), 70, 1, 29]
    sizes.append(1200 - sum(sizes) - 1)
    _show(lambda: [_digest(x) for x in _in_chunks(model, text[:1], [*sizes, 1])[:-1]])
    heads = _model_of(made, 6, 120, 99, 6)
    for one, ids in ((model, rows), (copy.deepcopy(model).train(), rows[:2]), (heads, rows)):
        _show(lambda: [_digest(x) for x in _in_chunks(one, ids, [70, 1, 1, 17, 1])[:-1]])
        _show(lambda: [_digest(x) for x in _in_chunks(one, ids, [1, 2, 66, 20, 1])[:-1]])
    _show(lambda: _digest(_in_chunks(one, rows[:1], [1] * 40 + [50])[-2]))
    _show(lambda: _digest(_kept_open(model, rows[:2])[0]))
    low = copy.deepcopy(model).float()
    _show(lambda: str(_in_chunks(low, rows, [70, 1, 19])[0].dtype))
    ways = [70, 1, 19], [20, 70]
    for way in ways:
        found = [_quietly(lambda: _in_chunks(one, rows, way)[:-1]) for one in (low, model)]
        _show(lambda: _far_off(*found, 1e-4))
"""
