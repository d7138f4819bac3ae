"""Wrong answers that students write to notebook 03, choosing a word: each is told its fault."""

import math
import re

import numpy as np
import pytest
import torch

from course_utils import checks
from course_utils.generation import keep_top_k, keep_top_p, next_token

pytestmark = pytest.mark.authors

INF = math.inf


def at_least(x, k):
    return x >= x.topk(min(k, x.size(-1))).values[:, -1:]


def one_threshold_for_all_rows(x, k):
    return x.masked_fill(x < x.topk(min(k, x.size(-1))).values.min(), -INF)


def exactly_k(x, k):
    where = x.topk(min(k, x.size(-1))).indices
    return torch.full_like(x, -INF).scatter(-1, where, x.gather(-1, where))


def cut_in_place(x, k):
    return x.masked_fill_(~at_least(x, k), -INF)


def nearly_tied_stay(x, k):
    return x.masked_fill(x < x.topk(min(k, x.size(-1))).values[:, -1:] - 1e-5, -INF)


def mask_on_the_cpu(x, k):
    return torch.where(torch.zeros(x.shape, dtype=torch.bool) | at_least(x, k), x, -INF)


def in_float32(x, k):
    where = x.topk(min(k, x.size(-1))).indices
    return keep_top_k(torch.full(x.shape, -INF).scatter(-1, where, x.gather(-1, where)), k)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, k: keep_top_k(x, k + 1), "the k-th best, not the one after it"),
        (lambda x, k: -keep_top_k(-x, k), "is \\[\\[1, inf, 2, inf\\]\\], expected \\[\\[-inf, 4"),
        (lambda x, k: x.masked_fill(at_least(x, k), -INF), "The k best are cut off"),
        (one_threshold_for_all_rows, "One threshold is used for all rows"),
        (lambda x, k: x.masked_fill(x < x[0].topk(min(k, x.size(-1)))[0][-1], -INF), "of row 0"),
        (lambda x, k: keep_top_k(x.T, k).T, "These are the k best of each column|expected"),
        (exactly_k, "Words that are tied with the k-th stay"),
        (cut_in_place, "changes a tensor that came in"),
        (lambda x, k: x.masked_fill(~at_least(x, k), 0.0), "What is cut off becomes 0"),
        (lambda x, k: keep_top_k(x, k).nan_to_num(neginf=0.0), "expected \\[\\[-inf, 4"),
        (lambda x, k: x.masked_fill(~at_least(x, k), -100), "What is cut off becomes -100:"),
        (lambda x, k: x.masked_fill(~at_least(x, k), -1e9), "becomes -1e\\+09: it has to be -math"),
        (lambda x, k: x.topk(min(k, x.size(-1))).values, "shape \\(1, 2\\), expected \\(1, 4\\)"),
        (lambda x, k: torch.softmax(keep_top_k(x, k), -1), "results of a softmax"),
        (lambda x, k: x.masked_fill(x <= x.topk(min(k, x.size(-1)))[0][:, -1:], -INF), "It stays"),
        (lambda x, k: keep_top_k(x.float(), k), "float32, expected torch.float64"),
        (lambda x, k: keep_top_k(x[:1], k), "has shape \\(1, 4\\), expected \\(2, 4\\)"),
        (lambda x, k: keep_top_k(x, k).numpy(), "is a ndarray"),
        (lambda x, k: None, "is None"),
        (lambda x, k: x.topk(k)[:, -1:], "returns several things: unpack them first"),
        (in_float32, "expected"),
        (nearly_tied_stay, "1e-06"),
    ],
)
def test_wrong_top_k(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_keep_top_k(answer)


def test_a_tensor_on_the_cpu_is_only_remarked():
    """No card of the notebook names a device."""
    for said in (
        checks.check_keep_top_k(mask_on_the_cpu),
        checks.check_keep_top_p(nucleus(shifted_by_a_zero)),
    ):
        said = " ".join(said.split())
        assert " is right: " in said
        assert re.search("on a GPU it counts: keep_top_[kp] fails on another device", said)


def test_top_k_larger_than_the_vocabulary():
    with pytest.raises(AssertionError, match="out of range.*numbers, and k may be larger"):
        checks.check_keep_top_k(lambda x, k: x.masked_fill(x < x.topk(k).values[:, -1:], -INF))


def restored(x, ordered, token):
    return torch.empty_like(x).scatter(-1, token, ordered)


def nucleus(keep, put=restored, descending=True):
    def keep_top_p(logits, p):
        ordered, token = logits.sort(descending=descending)
        probability = torch.softmax(ordered, -1)
        return put(logits, ordered.masked_fill(~keep(probability, p), -INF), token)

    return keep_top_p


def likelier(probability):
    return probability.cumsum(-1) - probability


def keeps_ties(logits, p):
    kept = keep_top_p(logits, p)
    smallest = kept.masked_fill(kept == -INF, INF).amin(-1, keepdim=True)
    return logits.masked_fill(logits < smallest, -INF)


def overflows(logits, p):
    ordered, token = logits.sort(descending=True)
    probability = ordered.exp() / ordered.exp().sum(-1, keepdim=True)
    return restored(logits, ordered.masked_fill(likelier(probability) >= p, -INF), token)


def in_their_places(logits, p):
    return logits.masked_fill(likelier(torch.softmax(logits, -1)) >= p, -INF)


def shifted_by_a_zero(probability, p):
    zero = torch.zeros(len(probability), 1)
    return torch.cat([zero, probability.cumsum(-1)[:, :-1]], dim=1) < p


def as_many_as_row_0(logits, p):
    ordered = torch.softmax(logits[0], -1).sort(descending=True).values.cumsum(-1)
    return keep_top_k(logits, int((ordered < p).sum()) + 1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            nucleus(lambda q, p: q.cumsum(-1) <= p),
            "The word with which the sum reaches p is missing",
        ),
        (
            nucleus(lambda q, p: q.cumsum(-1) < p),
            "The word with which the sum reaches p is missing",
        ),
        (
            nucleus(lambda q, p: (q.cumsum(-1) <= p) | (q == q[:, :1])),
            "is \\[\\[-inf, 4, -inf, -inf",
        ),
        (nucleus(lambda q, p: likelier(q) < p, lambda x, ordered, token: ordered), "own places"),
        (nucleus(lambda q, p: likelier(q) < p, lambda x, o, token: o.gather(-1, token)), "own pla"),
        (
            nucleus(lambda q, p: likelier(q) < p, lambda x, o, _: x.masked_fill(o == -INF, -INF)),
            "own places: use scatter",
        ),
        (nucleus(lambda q, p: likelier(q) < p, descending=False), "The least likely words stay"),
        (nucleus(lambda q, p: q >= p), "compared with each word's probability"),
        (nucleus(lambda q, p: q >= 1 - p), "compared with 1 - p"),
        (nucleus(lambda q, p: q >= p * q[:, :1]), "compared with the likeliest one"),
        (nucleus(lambda q, p: likelier(q) < 1 - p), "1 - p is kept"),
        (nucleus(lambda q, p: q.cumsum(-1) > p), "the wrong way round"),
        (nucleus(lambda q, p: q.cumsum(0) - q < p), "down the columns"),
        (nucleus(lambda q, p: (likelier(q) < p)[:1].expand_as(q)), "that row 0 needs"),
        (nucleus(lambda q, p: likelier(q) - q < p), "One word too many stays"),
        (nucleus(lambda q, p: likelier(q) <= p), "add up to exactly p"),
        (as_many_as_row_0, "keep_top_p.*with the probabilities \\[\\[.*\\[.*expected"),
        (in_their_places, "sort them first"),
        (overflows, "exp overflows for large logits"),
        (keeps_ties, "Words tied with the last one stay"),
        (lambda x, p: keep_top_p(x, max(p, 0.1)), "0.04\\) is 0.9.*expected -inf"),
        (lambda x, p: keep_top_p(x, min(1, p + 0.1)), "with the probabilities.*expected"),
        (lambda x, p: torch.softmax(keep_top_p(x, p), -1), "results of a softmax"),
        (lambda x, p: keep_top_p(torch.log_softmax(x, -1), p), "results of a log_softmax"),
        (lambda x, p: keep_top_p(x, p).clamp(min=-1e9), "becomes -1e\\+09"),
        (lambda x, p: x.masked_fill_(keep_top_p(x, p) == -INF, -INF), "changes a tensor that came"),
        (lambda x, p: keep_top_p(x.float(), p), "float32, expected torch.float64"),
        (lambda x, p: None, "is None"),
    ],
)
def test_wrong_top_p(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_keep_top_p(answer)


def draw(
    scale=lambda x, t: x / t,
    cuts=lambda k, p: (k, p),
    seeded=lambda generator: generator,
    drawn=lambda q, generator: torch.multinomial(q, 1, generator=generator).squeeze(-1),
    logits=lambda x: x,
):
    """next_token with something wrong in it."""

    def answer(x, temperature=1.0, top_k=None, top_p=None, generator=None):
        if temperature == 0:
            return x.argmax(-1)
        top_k, top_p = cuts(top_k, top_p)
        x = scale(logits(x), temperature)
        x = x if top_k is None else keep_top_k(x, top_k)
        x = x if top_p is None else keep_top_p(x, top_p)
        return drawn(torch.softmax(x, -1), seeded(generator))

    return answer


def one_row(q, generator):
    return torch.multinomial(q[:1], 1, generator=generator)[:, 0].repeat(len(q))


def one_number_for_all(q, generator):
    return (q.cumsum(-1) < torch.rand(1, generator=generator)).sum(-1).clamp(max=q.size(-1) - 1)


def by_numpy(q, generator):
    if generator is not None:
        return torch.multinomial(q, 1, generator=generator).squeeze(-1)
    drawn = np.random.default_rng().random((len(q), 1))
    return (q.cumsum(-1) < torch.tensor(drawn)).sum(-1).clamp(max=q.size(-1) - 1)


def nucleus_first(x, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature and top_p is not None:
        x, top_p = temperature * keep_top_p(x / temperature, top_p), None
    return next_token(x, temperature, top_k, top_p, generator)


def temperature_last(x, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature:
        x = keep_top_p(keep_top_k(x, top_k or 99), top_p or 1.0)
    return next_token(x, temperature, generator=generator)


def divides_in_place(x, temperature=1.0, **options):
    if temperature:
        x /= temperature
    return next_token(x, min(temperature, 1.0), **options)


def place_among_the_kept(x, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature and top_k is not None:
        x = x.topk(min(top_k, x.size(-1))).values
    return next_token(x, temperature, None, top_p, generator)


def seeds_all(x, temperature=1.0, top_k=None, top_p=None, generator=None):
    if generator is not None:
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
    return next_token(x, temperature, top_k, top_p)


def no_greedy_case(x, temperature=1.0, top_k=None, top_p=None, generator=None):
    return torch.multinomial(torch.softmax(x / temperature, -1), 1).squeeze(-1)


def of_its_own(generator):
    return torch.Generator().manual_seed(0)


def twice(q, generator):
    return torch.multinomial(torch.softmax(q, -1), 1, generator=generator).squeeze(-1)


def equally(q, generator):
    return torch.multinomial((q > 0).float(), 1, generator=generator).squeeze(-1)


def begun_again(generator):
    return generator and torch.Generator().manual_seed(generator.initial_seed())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (draw(seeded=of_its_own), "generators with other seeds gave the same tokens"),
        (draw(seeded=lambda g: g or of_its_own(g)), "without a generator, two draws in a row"),
        (draw(seeded=begun_again), "two draws in a row with one generator gave the same"),
        (draw(seeded=lambda generator: None), "with the same seed gave other tokens"),
        (draw(drawn=by_numpy), "torch.manual_seed did not make a draw repeatable"),
        (seeds_all, "random numbers, or sets their seed"),
        (draw(drawn=one_row), "in 1000 draws, expected"),
        (draw(drawn=one_number_for_all), "in 1000 draws, expected"),
        (draw(drawn=twice), "The softmax is applied twice"),
        (draw(drawn=equally), "drawn equally often"),
        (draw(logits=lambda x: x[:1].expand_as(x)), "All rows are drawn from the logits of row 0"),
        (draw(logits=lambda x: torch.softmax(x, -1)), "A softmax comes before the temperature"),
        (draw(logits=lambda x: x.clamp(min=0)), "Logits below 0 become 0"),
        (draw(logits=lambda x: -x), "a sign is wrong"),
        (draw(lambda x, t: x * t), "multiplied by the temperature"),
        (draw(lambda x, t: x), "temperature=0.5.*The temperature is not used"),
        (draw(lambda x, t: x / t**2), "temperature=0.5.*expected"),
        (draw(cuts=lambda k, p: (None, None)), "top_k=2\\).*Neither top_k nor top_p is used"),
        (draw(cuts=lambda k, p: (None, p)), "top_k=2\\).*top_k is not used"),
        (draw(cuts=lambda k, p: (k, None)), "top_p=0.7\\).*top_p is not used"),
        (draw(cuts=lambda k, p: (k, p if k is None else None)), "not used where there is a top_k"),
        (draw(cuts=lambda k, p: (k if p is None else None, p)), "not used where there is a top_p"),
        (nucleus_first, "has to be given the logits that top-k left"),
        (temperature_last, "The temperature comes first"),
        (place_among_the_kept, "top_k=2\\) is drawn with shares \\[0.7.*expected \\[0.00, 0.7"),
        (divides_in_place, "changes the logits that came in"),
        (no_greedy_case, "division by 0.*nothing is divided"),
        (lambda x, t=2.0, **k: next_token(x, t, **k), "next_token\\(tensor.*\\) is drawn"),
        (lambda *a, **k: next_token(*a, **k).squeeze(), "has shape \\(\\), expected \\(1,\\)"),
        (draw(drawn=lambda *a: twice(*a).squeeze()), "has shape \\(\\), expected \\(1,\\)"),
        (lambda x, t=1.0, **k: next_token(x, t, **k).float(), "has dtype torch.float32"),
        (
            lambda x, t=1.0, **k: next_token(x, t, **k).tolist(),
            "gives list, expected a torch.Tensor",
        ),
        (lambda x, t=1.0, **_: x.argmax(-1), "It is always the likeliest token"),
        (lambda x, t=1.0, **_: x.argmin(-1), "These are the least likely tokens"),
        (lambda x, t=1.0, **_: x.argmax(), "has shape \\(\\), expected \\(1,\\)"),
        (lambda x, t=1.0, **_: x.argmax(0), "has shape \\(3,\\), expected \\(1,\\)"),
        (lambda *a, **k: next_token(*a, **k)[:, None], "has shape \\(1, 1\\), expected \\(1,\\)"),
        (lambda *a, **k: next_token(*a, **k) + 1, "holds token|expected \\[1\\]"),
    ],
)
def test_wrong_choice(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_next_token(answer)


def top_k_by_sorting(x, k):
    last = x.sort(dim=-1, descending=True).values[:, : min(k, x.size(-1))].amin(-1)
    return torch.stack([row.where(row >= least, -INF) for row, least in zip(x, last, strict=True)])


def top_p_from_the_tail(x, p):
    """What is cut off is the longest tail of the ascending order that 1 - p holds."""
    ordered, token = x.double().sort(dim=-1, stable=True)
    tail = torch.softmax(ordered, -1).cumsum(-1) <= 1 - p
    gone = torch.zeros_like(tail).scatter(-1, token, tail)
    return x.masked_fill(gone, -INF)


def top_p_by_ranks(x, p):
    shares = torch.softmax(x, -1)
    before = shares[:, None, :] > shares[:, :, None]
    earlier = torch.ones(x.size(-1), x.size(-1), device=x.device).tril(-1) == 1
    before |= (shares[:, None, :] == shares[:, :, None]) & earlier
    return x.masked_fill((before * shares[:, None, :]).sum(-1) >= p, -INF)


def by_gumbel(x, temperature=1.0, top_k=None, top_p=None, generator=None):
    """The largest of logits with Gumbel noise is a draw from their softmax."""
    if temperature == 0:
        return x.topk(1).indices[:, 0]
    x = x.double() / temperature
    x = top_k_by_sorting(x, top_k) if top_k else x
    x = top_p_by_ranks(x, top_p) if top_p else x
    noise = torch.empty_like(x).exponential_(generator=generator).log()
    return (x - noise).argmax(-1)


def by_a_distribution(x, temperature=1.0, top_k=None, top_p=None, generator=None):
    if generator is not None or temperature == 0:
        return next_token(x.double(), temperature, top_k, top_p, generator)
    x = keep_top_p(keep_top_k(x / temperature, top_k or 10**6), top_p or 1.0)
    return torch.distributions.Categorical(logits=x).sample()


def test_right_answers_written_another_way():
    checks.check_keep_top_k(top_k_by_sorting)
    checks.check_keep_top_k(
        lambda x, k: x.masked_fill((x[:, None] > x[..., None]).sum(-1) >= k, -INF)
    )
    checks.check_keep_top_k(
        lambda x, k: x if k >= x.size(-1) else torch.where(at_least(x, k), x, -INF)
    )
    checks.check_keep_top_p(top_p_from_the_tail)
    checks.check_keep_top_p(top_p_by_ranks)
    checks.check_keep_top_p(lambda x, p: x if p >= 1 else keep_top_p(x, p))
    checks.check_next_token(by_gumbel)
    checks.check_next_token(by_a_distribution)
