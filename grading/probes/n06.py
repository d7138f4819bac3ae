"""Probes of notebook 06."""

from .material import MODEL
from .shared import Probe

CLOCK = """
class _Clock:
    now = 100.0

    def __call__(self):
        return self.now


_clock = _Clock()
"""

PROBES = {
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


_show(lambda: [list(token_times(_start, _clock)), list(token_times(_start, _clock))])
_show(lambda: [list(token_times(lambda: [], _clock)), len(token_times(lambda: "abc"))])


def _many(number, step, token):
    # So many tokens, each the same.
    for _ in range(number):
        _clock.now += step
        yield token


def _long(*given):
    return torch.tensor(token_times(lambda: _many(*given), _clock), dtype=torch.float64)


# Many tokens, tokens that are false, hours, and less than a millionth of a second.
_show(lambda: [_digest(_long(1100 + _whole(0, 99), 0.25, "token")), _long(3, 1800.0, 1)])
_show(lambda: [_long(4, 0.5, token) for token in (0, "", torch.zeros(2))])
_show(lambda: _long(3, 2.0**-24 * _whole(1, 9), 1) * 2.0**24)
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
        seconds_later[name] += 0.25
        _clock.now += seconds_later[name]
        _log.append(name)

    return run


def _measured(names, rounds):
    _log.clear()
    tasks = {name: _task(name, _whole(1, 9) / 4) for name in names}
    found = measure(tasks, rounds, _clock)
    turns = [sorted(_log[at : at + len(names)]) for at in range(0, len(_log), len(names))]
    return [sorted((name, list(seconds)) for name, seconds in found.items()), turns]


seconds_later = dict.fromkeys("abc", 0.0)
_show(lambda: [_measured("abc", 4), _measured("c", 2), _measured("ba", 1)])
_show(lambda: [len(seconds) for seconds in measure({"a": list, "b": dict}, 3).values()])


def _many(names, rounds, unit):
    # Each round takes another time; whether the tasks come in the same order in each.
    _log.clear()
    drawn = torch.randint(1, 99, (len(names), rounds + 1), generator=_random).tolist()
    times = dict(zip(names, drawn, strict=True))

    def task(name):
        def run():
            _clock.now += unit * times[name][_log.count(name)]
            _log.append(name)

        return run

    found = measure({name: task(name) for name in names}, rounds, _clock)
    turns = [_log[at : at + len(names)] for at in range(len(names), len(_log), len(names))]
    seconds = [torch.tensor(found[name], dtype=torch.float64) / unit for name in sorted(found)]
    return [seconds, all(turn == turns[0] for turn in turns), len(_log)]


_show(lambda: [_many("zyxhgfab", 3, 0.25), _many("ba", 30, 60.0), _many("ab", 3, 2.0**-24)])
_show(lambda: [_many("ab", 0, 1.0)[2], _many("a", 1, 1.0)])
""",
    ),
    "operations": Probe(
        "06",
        (
            *("softmax", "causal_mask", "attention", "multi_head"),
            *("feed_forward", "decoder_layer", "model"),
        ),
        MODEL.replace("_one_of(1, 2, 4)", "_one_of(4, 5, 7)")
        + """
_model.num_layers = _shape[3]
_sizes = [(1, 1), (1, _whole(2, 16)), (_whole(2, 6), _whole(6, 16))]
_show(lambda: [str(int(operations(_model, n, t))) for n, t in _sizes])


def _counted(num_layers, d_model, vocab_size, *sizes):
    made = _quietly(lambda: DecoderOnlyTransformer(vocab_size, d_model, 150, num_layers, 9, 2))
    made.num_layers = num_layers
    made.eval()
    found = [str(int(operations(made, n, t))) for n, t in sizes]
    made.requires_grad_(False)
    return [found, str(int(operations(made, 1, 1))), made.training]


# Many layers, words and tokens, wide, and as many operations as no 32 bits can count.
_far = 1000 + _whole(0, 99), 2000 + _whole(0, 999)
_show(lambda: [_counted(9, 80, 300, (1, 1), _far, (10**6 + 1, 10**7 + 3)), _counted(1, 6, 9, _far)])
""",
    ),
    "exponent": Probe(
        "06",
        (),
        """
_tokens = np.array([10.0, 20.0, 50.0, 100.0, 500.0])
_times = 0.01 * _tokens ** _whole(1, 4) * np.exp(_draw(5).numpy() / 5)
_show(lambda: [float(exponent(_tokens, _times)), float(exponent(_tokens[::2], _times[::2]))])


def _of(tokens, power, seconds=1e-3):
    # The exponent of a noisy law, and whether what was given is as it was.
    noise = torch.randn(len(tokens), generator=_random, dtype=torch.float64).numpy() / 9
    given = np.array(tokens), seconds * np.array(tokens, dtype=float) ** power * np.exp(noise)
    kept = [x.copy() for x in given]
    found = float(exponent(*given))
    return [found, float(exponent(*(x.tolist() for x in given)))] + [
        bool((x == y).all()) for x, y in zip(given, kept, strict=True)
    ]


# Lists and arrays, two points and many, in any order, with repetition, of all sizes.
_many = torch.randperm(30, generator=_random).add(1).tolist()
_show(lambda: [_of(_many, power) for power in (-1.5, 0.02, 2, 4.5)])
_show(lambda: [_of([10, 20], 1.5), _of([5, 5, 5, 40, 40], 1), _of([9, 3, 700, 20], -2, 1e-6)])
_show(lambda: [_of([1e5, 3e6, 2e8], 1, 1e3), _of([10**5, 10**6, 10**7], 2, 1e-12)])
""",
    ),
}
