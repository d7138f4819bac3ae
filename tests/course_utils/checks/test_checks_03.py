"""Wrong answers that students write to notebook 03: each fails, with a message about its fault."""

import math

import pytest
import torch

from course_utils import checks
from course_utils.generation import beam_search, generate, keep_top_k, keep_top_p, next_token


def one_threshold_for_all_rows(logits, k):
    return logits.masked_fill(logits < logits.topk(k).values.min(), -math.inf)


def cut_in_place(logits, k):
    return logits.masked_fill_(logits < logits.topk(min(k, 5)).values[:, -1:], -math.inf)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, k: keep_top_k(x, k + 1), "with k=1.*those at \\[1\\] stay.*leaves \\[1, 3\\]"),
        (lambda x, k: keep_top_k(-x, k), "those at \\[1\\] stay"),
        (one_threshold_for_all_rows, "those at \\[1\\] stay"),
        (cut_in_place, "was changed"),
        (lambda x, k: keep_top_k(x, k).nan_to_num(neginf=0.0), "leaves \\[0, 1, 2, 3, 4\\]"),
        (lambda x, k: x.topk(min(k, 5)).values, "has shape \\(2, 1\\), expected \\(2, 5\\)"),
        (lambda x, k: torch.softmax(keep_top_k(x, k), -1), "those at|is 1.0000 at \\[0, 1\\]"),
        (lambda x, k: None, "is None"),
    ],
)
def test_wrong_top_k(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_keep_top_k(answer)


def test_top_k_larger_than_the_vocabulary():
    with pytest.raises(AssertionError, match="out of range.*k may exceed the number of words"):
        checks.check_keep_top_k(lambda x, k: x.masked_fill(x < x.topk(k).values[:, -1:], -math.inf))


def nucleus(keep, restore=True):
    def keep_top_p(logits, p):
        ordered, token = logits.sort(descending=True)
        probability = torch.softmax(ordered, -1)
        ordered = ordered.masked_fill(~keep(probability, p), -math.inf)
        return torch.empty_like(logits).scatter(-1, token, ordered) if restore else ordered

    return keep_top_p


def keeps_ties(logits, p):
    kept = keep_top_p(logits, p)
    smallest = kept.masked_fill(kept == -math.inf, math.inf).amin(-1, keepdim=True)
    return logits.masked_fill(logits < smallest, -math.inf)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (nucleus(lambda q, p: q.cumsum(-1) <= p), "no word is left"),
        (nucleus(lambda q, p: (q.cumsum(-1) <= p) | (q == q[:, :1])), "yours leaves \\[2\\]"),
        (nucleus(lambda q, p: q.cumsum(-1) - q < p, restore=False), "leaves \\[0\\]"),
        (nucleus(lambda q, p: q >= 1 - p), "no word is left"),
        (nucleus(lambda q, p: q.cumsum(-1) > p), "yours leaves"),
        (nucleus(lambda q, p: q.cumsum(-1) - q <= p), "leaves 3 of four equally likely words"),
        (keeps_ties, "leaves 4 of four equally likely words"),
        (lambda x, p: keep_top_p(x, min(1, p + 0.1)), "those at"),
        (lambda x, p: torch.softmax(keep_top_p(x, p), -1), "yours leaves"),
        (lambda x, p: None, "is None"),
    ],
)
def test_wrong_top_p(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_keep_top_p(answer)


def draw(scale, cut=True, order=False, replace=True):
    def answer(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
        if temperature == 0:
            return logits.argmax(-1)
        if order and top_p is not None:
            logits, top_p = keep_top_p(logits, top_p), None
        logits = scale(logits, temperature)
        options = {"top_k": top_k, "top_p": top_p} if cut else {}
        return next_token(logits, 1.0, **options, generator=generator if replace else None)

    return answer


def seeds_itself(logits, temperature=1.0, generator=None, **options):
    generator = torch.Generator().manual_seed(0)
    return next_token(logits, temperature, **options, generator=generator)


def nucleus_before_the_k_best(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature and top_p is not None:
        logits, top_p = temperature * keep_top_p(logits / temperature, top_p), None
    return next_token(logits, temperature, top_k, top_p, generator)


def one_cut_only(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    top_p = top_p if top_k is None else None
    return next_token(logits, temperature, top_k, top_p, generator)


def divides_in_place(logits, temperature=1.0, **options):
    if temperature:
        logits /= temperature
    return next_token(logits, min(temperature, 1.0), **options)


def no_greedy_case(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1).squeeze(-1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (seeds_itself, "Another seed gave the same tokens"),
        (nucleus_before_the_k_best, "top_k=2, top_p=0.6 the|top_k=3, top_p=0.83 the"),
        (one_cut_only, "top_k=2, top_p=0.6 the tokens"),
        (divides_in_place, "was changed"),
        (no_greedy_case, "Nothing is divided by 0"),
        (lambda *a, **k: next_token(*a, **k).squeeze(), "For one row, next_token gave \\(\\)"),
        (lambda x, t=1.0, **k: next_token(x, t, **k).float(), "has dtype|gave torch.float32"),
        (draw(lambda x, t: x * t), "multiplied by the temperature"),
        (draw(lambda x, t: x), "temperature=0.5.*came up with shares"),
        (draw(lambda x, t: x / t, cut=False), "top_k=2, top_p=None the tokens"),
        (draw(lambda x, t: x / t, order=True), "top_p=0.7 the tokens.*The temperature comes first"),
        (draw(lambda x, t: x / t, replace=False), "same seed gave other tokens"),
        (lambda x, t=1.0, **_: x.argmax(-1), "came up with shares"),
        (lambda x, t=1.0, **_: x.argmin(-1), "the greedy token"),
        (lambda x, t=1.0, **_: x.argmax(), "has shape \\(\\), expected \\(2,\\)"),
        (lambda *a, **k: next_token(*a, **k)[:, None], "has shape \\(2, 1\\), expected \\(2,\\)"),
    ],
)
def test_wrong_choice(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_next_token(answer)


def loop(
    feed=lambda ids: ids, choose=lambda logits: logits[:, -1], prompt=True, extra=0, hand=True
):
    def answer(model, input_ids, max_new_tokens, temperature=1.0, generator=None, **options):
        ids = input_ids
        generator = generator if hand else None
        for _ in range(max_new_tokens + extra):
            logits = choose(model(feed(ids))[0])
            token = next_token(logits, temperature, generator=generator, **options)
            ids = torch.cat([ids, token[:, None]], dim=1)
        return ids if prompt else ids[:, input_ids.size(1) :]

    return answer


def drops_the_cuts(model, ids, new, temperature=1.0, generator=None, top_k=None, top_p=None):
    return loop()(model, ids, new, temperature, generator)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (loop(feed=lambda ids: ids[:, -1:]), "run on \\[1, 1, 1, 1, 1\\] tokens, expected \\[3"),
        (loop(choose=lambda logits: logits[:, 0]), "generate with temperature=0 gave the tokens"),
        (loop(prompt=False), "gave \\(1, 5\\), expected \\(1, 8\\)"),
        (loop(extra=1), "gave \\(1, 9\\), expected \\(1, 8\\)"),
        (loop(hand=False), "generator handed on"),
        (drops_the_cuts, "With top_k=1 only the likeliest word is left"),
        (loop(feed=lambda ids: ids[:, -8:]), "each on the whole text so far"),
        (lambda m, ids, n, t=1.0, temperature=1.0, generator=None: ids, "gave \\(1, 3\\)"),
        (
            lambda m, ids, n, temperature=1.0, **_: generate(m, ids, n, 0, use_cache=False),
            "At temperature 5 the words are the greedy ones",
        ),
    ],
)
def test_wrong_loop(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_generate(answer)


def test_a_loop_that_takes_the_pair_for_logits():
    def answer(model, ids, new, temperature=1.0, **options):
        return next_token(model(ids)[:, -1], temperature)

    with pytest.raises(AssertionError, match="tuple indices.*`logits, _ = model\\(ids\\)`"):
        checks.check_generate(answer)


def test_a_cached_loop_is_not_what_was_asked():
    with pytest.raises(AssertionError, match="the whole text so far"):
        checks.check_generate(generate)


def beams(change):
    def answer(model, prompt, new, num_beams):
        return change(*beam_search(model, prompt, new, num_beams, use_cache=False))

    return answer


def greedy_only(model, prompt, new, num_beams):
    ids, scores = beam_search(model, prompt, new, 1, use_cache=False)
    return ids.repeat(num_beams, 1), scores.repeat(num_beams)


def parents_forgotten(model, prompt, new, num_beams):
    ids, scores = prompt, torch.zeros(1)
    for _ in range(new):
        total = scores[:, None] + model(ids)[0][:, -1].log_softmax(-1)
        scores, best = total.flatten().topk(min(num_beams, total.numel()))
        ids = torch.cat([ids[:1].expand(len(best), -1), best[:, None] % 5], dim=1)
    return ids, scores


def logits_added(model, prompt, new, num_beams):
    ids, scores = prompt, torch.zeros(1)
    for _ in range(new):
        total = scores[:, None] + model(ids)[0][:, -1]
        scores, best = total.flatten().topk(min(num_beams, total.numel()))
        ids = torch.cat([ids[best // 5], best[:, None] % 5], dim=1)
    return ids, scores


def vocabulary_written_down(model, prompt, new, num_beams):
    ids, scores = prompt, torch.zeros(1)
    for _ in range(new):
        total = scores[:, None] + model(ids)[0][:, -1].log_softmax(-1)
        scores, best = total.flatten().topk(min(num_beams, total.numel()))
        ids = torch.cat([ids[best // 252], best[:, None] % 252], dim=1)
        ids = ids if len(ids[0]) == prompt.size(1) + new else ids.clamp(max=4)
    return ids, scores


def alike_at_first(model, prompt, new, num_beams):
    ids, scores = prompt.repeat(num_beams, 1), torch.zeros(num_beams)
    for _ in range(new):
        total = scores[:, None] + model(ids)[0][:, -1].log_softmax(-1)
        scores, best = total.flatten().topk(num_beams)
        ids = torch.cat([ids[best // 5], best[:, None] % 5], dim=1)
    return ids, scores


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (greedy_only, "With num_beams=2 two texts are the same"),
        (parents_forgotten, "whole text go with its child"),
        (logits_added, "has the score .* add up to"),
        (beams(lambda ids, scores: ids), "returns two things"),
        (beams(lambda ids, scores: (ids, scores.exp())), "has the score 0.* add up to -"),
        (beams(lambda ids, scores: (ids.flip(0), scores.flip(0))), "not in order: best first"),
        (vocabulary_written_down, "a text holds token .*not by a number written down"),
        (alike_at_first, "two texts are the same. At first there is one beam"),
        (beams(lambda ids, scores: (ids[:1], scores[:1])), "has shape \\(1, 6\\)"),
    ],
)
def test_wrong_beams(answer, words):
    with pytest.raises(AssertionError, match=words), torch.no_grad():
        checks.check_beam_search(answer)


def test_right_answers_pass():
    checks.check_generate(loop())
    checks.check_beam_search(beams(lambda ids, scores: (ids, scores)))
