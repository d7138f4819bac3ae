"""Wrong answers that students write to notebook 03, the two loops: each is told its fault."""

import math

import pytest
import torch

from course_utils import checks
from course_utils.generation import beam_search, generate, next_token

pytestmark = pytest.mark.authors


def loop(
    score=lambda model, ids: model(ids)[0][:, -1],
    append=lambda ids, token, logits: torch.cat([ids, token[:, None]], dim=1),
    options=lambda temperature, sampling: (temperature, sampling),
    end=lambda ids, prompt: ids,
    extra=0,
):
    """generate with something wrong in it."""

    @torch.no_grad()
    def answer(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
        ids = input_ids
        temperature, sampling = options(temperature, sampling)
        for _ in range(max_new_tokens + extra):
            logits = score(model, ids)
            ids = append(ids, next_token(logits, temperature, **sampling), logits)
        return end(ids, input_ids)

    return answer


def of_logits(change):
    return loop(lambda model, ids: change(model(ids)[0][:, -1]))


def at(change):
    return loop(lambda model, ids: change(model(ids)[0]))


def without(*names):
    kept = lambda sampling: {name: x for name, x in sampling.items() if name not in names}  # noqa: E731
    return loop(options=lambda temperature, sampling: (temperature, kept(sampling)))


def seeded(generator):
    return loop(options=lambda t, sampling: (t, {**sampling, "generator": generator(sampling)}))


def of_its_own(sampling):
    return torch.Generator().manual_seed(0)


def on_text(change):
    return loop(lambda model, ids: model(change(ids))[0][:, -1])


def another(temperature=lambda t: t):
    return loop(options=lambda t, sampling: (temperature(t), sampling))


@torch.no_grad()
def feeds_back_the_greedy_token(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    ids = told = input_ids
    for _ in range(max_new_tokens):
        logits = model(ids)[0][:, -1]
        told = torch.cat([told, next_token(logits, temperature, **sampling)[:, None]], dim=1)
        ids = torch.cat([ids, logits.argmax(-1)[:, None]], dim=1)
    return told


@torch.no_grad()
def all_from_one_run(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    logits = model(input_ids)[0][:, -1]
    new = [next_token(logits, temperature, **sampling)[:, None] for _ in range(max_new_tokens)]
    return torch.cat([input_ids, *new], dim=1)


@torch.no_grad()
def draws_the_first_only(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    ids = input_ids
    for step in range(max_new_tokens):
        token = next_token(model(ids)[0][:, -1], 0 if step else temperature, **sampling)
        ids = torch.cat([ids, token[:, None]], dim=1)
    return ids


@torch.no_grad()
def stops_at_two(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    ids = input_ids
    for _ in range(max_new_tokens):
        token = next_token(model(ids)[0][:, -1], temperature, **sampling)
        ids = torch.cat([ids, token[:, None]], dim=1)
        if (token == 2).all():
            break
    return ids


@torch.no_grad()
def seeds_all(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    torch.manual_seed(0)
    return loop()(model, input_ids, max_new_tokens, temperature, **sampling)


@torch.no_grad()
def changes_the_prompt(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    told = loop()(model, input_ids.clone(), max_new_tokens, temperature, **sampling)
    input_ids[:, 0] = 0
    return told


@torch.no_grad()
def one_sequence_only(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    ids = input_ids
    for _ in range(max_new_tokens):
        token = next_token(model(ids)[0][:, -1], temperature, **sampling).item()
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return ids


@torch.no_grad()
def buffer_on_the_cpu(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    batch, length = input_ids.shape
    ids = torch.zeros(batch, length + max_new_tokens, dtype=torch.long)
    ids[:, :length] = input_ids
    for now in range(length, length + max_new_tokens):
        ids[:, now] = next_token(model(ids[:, :now])[0][:, -1], temperature, **sampling)
    return ids


def dulled(model, input_ids, max_new_tokens, temperature=0.8, **sampling):
    return loop()(model, input_ids, max_new_tokens, temperature, **sampling)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (of_logits(lambda x: torch.softmax(x, -1)), "next_token is given probabilities"),
        (of_logits(lambda x: 2 * x), "The logits are doubled"),
        (of_logits(lambda x: x / 2), "The logits are halved"),
        (of_logits(lambda x: x.clamp(min=0)), "Logits below 0 become 0"),
        (of_logits(lambda x: -x), "These are the least likely words"),
        (of_logits(lambda x: x[:1].expand_as(x)), "All rows go on as row 0 does"),
        (of_logits(lambda x: x.sort().values), "Each is the likeliest word"),
        (at(lambda x: x[:, 0]), "Only the last position counts"),
        (at(lambda x: x[:, -2]), "Only the last position counts"),
        (at(lambda x: x.mean(1)), "Only the last position counts"),
        (without("top_p"), "top_p=0.7.*top_p is not handed on"),
        (without("top_k"), "top_k=2.*top_k is not handed on"),
        (without("top_k", "top_p"), "top_k=2.*top_k and top_p are not handed on"),
        (another(lambda t: min(t, 1.0)), "temperature=2.0\\) is drawn with shares"),
        (another(lambda t: t and 1.0), "temperature=0.5.*The temperature is not handed on"),
        (another(lambda t: t**2), "The temperature is used twice"),
        (another(lambda t: 0), "The words are the greedy ones at any temperature"),
        (another(lambda t: 1.0), "Each is the likeliest word.*and the temperature\\?"),
        (dulled, "is drawn with shares .* in 5000 draws, expected"),
        (without("generator"), "with the same seed gave other tokens. Is the generator handed on"),
        (seeded(of_its_own), "generators with other seeds gave the same tokens"),
        (seeded(lambda s: s.get("generator") or of_its_own(s)), "without a generator, two draws"),
        (seeds_all, "PyTorch's own random numbers were used, or seeded|without a generator"),
        (feeds_back_the_greedy_token, "where the text so far is .*what was drawn is appended"),
        (
            loop(append=lambda ids, _, logits: torch.cat([ids, logits.argmax(-1)[:, None]], dim=1)),
            "The words are the greedy ones at any temperature",
        ),
        (draws_the_first_only, "is drawn with shares"),
        (all_from_one_run, "on \\[3\\] tokens, expected \\[3, 4, 5, 6, 7\\]: one run per new"),
        (on_text(lambda ids: ids[:, -1:]), "model on \\[1, 1, 1, 1, 1\\] tokens, expected \\[3"),
        (on_text(lambda ids: ids[:, -4:]), "model on \\[3, 4, 4, 4, 4\\] tokens, expected \\[3"),
        (
            loop(lambda model, ids: model(ids[:1])[0][:, -1].expand(len(ids), -1)),
            "runs the model on 1 rows, expected 2",
        ),
        (loop(end=lambda ids, prompt: ids[:, prompt.size(1) :]), "gives \\(1, 5\\), expected"),
        (loop(end=lambda ids, prompt: ids.float()), "has dtype torch.float32"),
        (loop(end=lambda ids, prompt: ids.tolist()), "gives list"),
        (loop(end=lambda ids, prompt: None), "gives nothing"),
        (loop(end=lambda ids, prompt: ids.flip(1)), "does not begin with the prompt"),
        (loop(extra=1), "gives \\(1, 9\\), expected \\(1, 8\\)"),
        (stops_at_two, "and all the new tokens that were asked for"),
        (
            loop(append=lambda ids, token, _: torch.cat([token[:, None], ids], dim=1)),
            "does not begin with the prompt",
        ),
        (
            loop(append=lambda ids, token, _: torch.cat([ids, token], dim=1)),
            "raised RuntimeError.*token\\[:, None\\] is \\(B, 1\\)",
        ),
        (
            loop(append=lambda ids, token, _: torch.cat([ids, token[:, None]])),
            "raised RuntimeError.*appended with dim=1",
        ),
        (
            loop(append=lambda ids, token, _: torch.cat([ids, token.flip(0)[:, None]], dim=1)),
            "generate\\(model, \\[\\[.*\\], \\[.*expected",
        ),
        (loop(lambda model, ids: model.eval()(ids)[0][:, -1]), "leaves the model in evaluation mo"),
        (loop(lambda model, ids: model.train()(ids)[0][:, -1]), "leaves the model in training mo"),
        (loop(lambda model, ids: model(ids)[:, -1]), "`logits, _ = model\\(ids\\)`"),
        (generate, "runs the model on \\[3, 1, 1, 1, 1\\] tokens.*the whole text so far"),
        (changes_the_prompt, "changes the prompt"),
        (one_sequence_only, "there is a token for each row"),
    ],
)
def test_wrong_loop(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_generate(answer)


def test_a_buffer_on_the_cpu_is_only_remarked():
    """No card of the notebook names a device."""
    for said in (
        checks.check_generate(buffer_on_the_cpu),
        checks.check_beam_search(beams(start=lambda ids, num_beams: (ids, torch.zeros(1)))),
    ):
        said = " ".join(said.split())
        assert " is right: " in said and "on a GPU it counts: " in said
        assert "fails on another device" in said


def beams(
    candidates=lambda scores, logits: scores[:, None] + torch.log_softmax(logits, -1),
    number=lambda num_beams, found: min(num_beams, found.numel()),
    parents=lambda ids, beam: ids[beam],
    num_words=None,
    start=lambda ids, num_beams: (ids, torch.zeros(1, device=ids.device)),
    scored=lambda scores, logits, beam, best: best,
    end=lambda ids, scores: (ids, scores),
):
    """beam_search with something wrong in it."""

    @torch.no_grad()
    def answer(model, input_ids, max_new_tokens, num_beams):
        ids, scores = start(input_ids, num_beams)
        for _ in range(max_new_tokens):
            logits, _ = model(ids)
            found = candidates(scores, logits[:, -1])
            best, where = found.flatten().topk(number(num_beams, found))
            beam, token = where // (num_words or logits.size(-1)), where % logits.size(-1)
            token = where % num_words if num_words else token
            scores = scored(scores, logits[:, -1], beam, best)
            ids = torch.cat([parents(ids, beam), token[:, None]], dim=1)
        return end(ids, scores)

    return answer


def alike(ids, num_beams):
    return ids.repeat(num_beams, 1), torch.zeros(num_beams, device=ids.device)


@torch.no_grad()
def one_child_each(model, ids, new, num_beams):
    scores = torch.zeros(1)
    for _ in range(new):
        logs = torch.log_softmax(model(ids)[0][:, -1], -1)
        if len(ids) < num_beams:
            scores, where = (scores[:, None] + logs).flatten().topk(min(num_beams, logs.numel()))
            beam, token = where // logs.size(-1), where % logs.size(-1)
        else:
            best, token = logs.max(-1)
            scores, beam = scores + best, torch.arange(len(ids))
        ids = torch.cat([ids[beam], token[:, None]], dim=1)
    order = scores.argsort(descending=True)
    return ids[order], scores[order]


def greedy_again_and_again(model, prompt, new, num_beams):
    ids, scores = beam_search(model, prompt, new, 1, use_cache=False)
    return ids.repeat(num_beams, 1), scores.repeat(num_beams)


def to_evaluation_mode(model, prompt, new, num_beams):
    return beam_search(model.eval(), prompt, new, num_beams, use_cache=False)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (greedy_again_and_again, "finds the same text twice"),
        (beams(start=alike, number=lambda n, found: n), "same text twice. At first there is one"),
        (
            beams(parents=lambda ids, beam: ids[:1].repeat(len(beam), 1)),
            "same text twice|ids\\[beam",
        ),
        (
            beams(parents=lambda ids, beam: ids if len(ids) == len(beam) else ids[beam]),
            "ids\\[beam\\]",
        ),
        (beams(lambda scores, logits: scores[:, None] + logits), "The logits are added up"),
        (beams(lambda s, x: s[:, None] + torch.softmax(x, -1)), "Probabilities are added up"),
        (
            beams(lambda s, x: s[:, None] + torch.log_softmax(x, 0)),
            "log_softmax goes over the words, and is added",
        ),
        (beams(lambda s, x: torch.log_softmax(x, -1)), "add the score of its beam"),
        (
            beams(
                lambda s, x: torch.log_softmax(x, -1),
                scored=lambda s, x, beam, best: s[beam] + best,
            ),
            "chosen by their last word alone|not in order",
        ),
        (one_child_each, "Each beam goes on with its own best word"),
        (beams(number=lambda n, found: n), "Take min\\(num_beams, candidates.numel"),
        (
            beams(number=lambda n, found: min(n, found.size(-1))),
            "gives ids \\(5, 6\\), expected \\(25",
        ),
        (beams(num_words=252), "finds a text with token 6: there are 5 words"),
        (beams(num_words=3), "asks for a beam that does not exist"),
        (beams(num_words=4), "asks for a beam that does not exist|expected|add up to"),
        (beams(end=lambda ids, scores: ids), "expected two things"),
        (beams(end=lambda ids, scores: (ids, scores.exp())), "These are probabilities"),
        (beams(end=lambda ids, scores: (ids, scores / 3)), "divided by the number of words"),
        (beams(end=lambda ids, scores: (ids, -scores)), "The sign is wrong"),
        (beams(end=lambda ids, scores: (ids, scores / math.log(2))), "Take natural logarithms"),
        (beams(end=lambda ids, scores: (ids.flip(0), scores.flip(0))), "the best comes first"),
        (beams(end=lambda ids, scores: (ids.flip(0), scores)), "add up to -"),
        (
            beams(end=lambda ids, scores: (ids[:1], scores[:1])),
            "gives ids \\(1, 6\\), expected \\(2,",
        ),
        (
            beams(end=lambda ids, scores: (ids[:, 3:], scores)),
            "gives ids \\(1, 3\\), expected \\(1,",
        ),
        (beams(end=lambda ids, scores: (ids, scores.tolist())), "gives scores list"),
        (beams(end=lambda ids, scores: (ids.float(), scores)), "ids of dtype torch.float32"),
        (beams(end=lambda ids, scores: (ids * 0, scores)), "does not begin with the prompt"),
        (
            beams(lambda s, x: -s[:, None] - torch.log_softmax(x, -1)),
            "score|not in order|least likely",
        ),
        (to_evaluation_mode, "leaves the model in evaluation mode"),
    ],
)
def test_wrong_beams(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_beam_search(answer)


@torch.no_grad()
def called_by_its_parts(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    """With log-probabilities for logits, a list of columns, and the model's own method."""
    columns = list(input_ids.unbind(1))
    while len(columns) < input_ids.size(1) + max_new_tokens:
        logits = model.forward(torch.stack(columns, dim=1))[0].select(1, -1)
        columns.append(next_token(torch.log_softmax(logits.double(), -1), temperature, **sampling))
    return torch.stack(columns, dim=1)


@torch.no_grad()
def in_evaluation_mode(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    """Sets the mode, and sets it back."""
    training = model.training
    model.eval()
    ids = input_ids.clone()
    for _ in range(max_new_tokens):
        token = next_token(model(input_ids=ids)[0][:, -1] + 5.0, temperature, **sampling)
        ids = torch.hstack([ids, token.unsqueeze(1)])
    model.train(training)
    return ids


def with_gradients(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    if max_new_tokens == 0:
        return input_ids
    token = next_token(model(input_ids)[0][:, -1], temperature, **sampling)
    longer = torch.cat([input_ids, token[:, None]], dim=1)
    return with_gradients(model, longer, max_new_tokens - 1, temperature, **sampling)


def crops_to_the_room(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    room = model.max_seq_len
    cropped = loop(lambda model, ids: model(ids[:, -room:])[0][:, -1])
    return cropped(model, input_ids, max_new_tokens, temperature, **sampling)


@pytest.mark.parametrize(
    "answer", [loop(), called_by_its_parts, in_evaluation_mode, with_gradients, crops_to_the_room]
)
def test_right_loops_written_another_way(answer):
    checks.check_generate(answer)


def hidden_at_first(ids, num_beams):
    scores = torch.full((num_beams,), -math.inf, device=ids.device)
    scores[0] = 0.0
    return ids.repeat(num_beams, 1), scores


@torch.no_grad()
def best_of_each_first(model, ids, new, num_beams):
    """The best of each beam, and then the best of these; in float64."""
    scores = torch.zeros(1, dtype=torch.float64, device=ids.device)
    for _ in range(new):
        logs = model(ids)[0][:, -1].double().log_softmax(-1)
        best, token = logs.topk(min(num_beams, logs.size(-1)))
        total = (scores[:, None] + best).flatten()
        order = total.argsort(descending=True)[:num_beams]
        ids = torch.cat([ids[order // best.size(-1)], token.flatten()[order][:, None]], dim=1)
        scores = total[order]
    return ids, scores


@pytest.mark.parametrize(
    "answer",
    [beams(), beams(start=hidden_at_first, number=lambda n, found: n), best_of_each_first],
)
def test_right_searches_written_another_way(answer):
    checks.check_beam_search(answer)
    with torch.enable_grad():
        checks.check_beam_search(lambda *given: answer.__wrapped__(*given))
