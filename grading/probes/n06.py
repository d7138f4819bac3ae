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
""",
    ),
    "exponent": Probe(
        "06",
        (),
        """
_tokens = np.array([10.0, 20.0, 50.0, 100.0, 500.0])
_times = 0.01 * _tokens ** _whole(1, 4) * np.exp(_draw(5).numpy() / 5)
_show(lambda: [float(exponent(_tokens, _times)), float(exponent(_tokens[::2], _times[::2]))])
""",
    ),
}
