"""Wrong loops that students write to notebook 04: each is told what is wrong with it.

Most are the worked answer with one or two lines written otherwise.
"""

import re

import pytest
import torch
from rewritten_answers import refused

from course_utils import checks
from course_utils.checks.n04_wrong_loops import WRONG_LOOPS
from course_utils.generation import decode_loop, next_token

pytestmark = pytest.mark.authors

RUN = "logits, past_kv = model(ids, past_kv=past_kv, use_cache=use_cache)"
PICK = "token = next_token(logits[:, -1], **sampling)"
FEED = "ids = token[:, None] if use_cache else torch.cat([ids, token[:, None]], dim=1)"
LAST = "ids = torch.cat([input_ids, token[:, None]], dim=1)"
NOT_KEPT = "logits, _ = model(ids, use_cache=use_cache)"
IDS = "ids = input_ids\n"
GREEDY = "t = logits[:, -1].argmax(-1); " + FEED.replace("token", "t")
AGAIN = "t = next_token(logits[:, -1], **sampling); " + FEED.replace("token", "t")
ONE = "next_token(logits[:1, -1], **sampling).expand(len(ids))"
SEED = "generator=sampling.pop('generator', None) or torch.Generator().manual_seed(0)"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            [(FEED, "ids = torch.cat([ids, token[:, None]], dim=1)")],
            "[5, 6], expected [5, 1]. The whole",
        ),
        ([(FEED, "ids = token[:, None]")], "[5, 1], expected [5, 6]. The new token alone"),
        (
            [(FEED, FEED.replace("ids = token[:, None]", "ids = token"))],
            "takes (B, 1): token[:, None]",
        ),
        ([(FEED, FEED.replace("ids = token[:, None]", "ids = token[None]"))], "one row for each"),
        ([(FEED, FEED.replace("if use_cache", "if not use_cache"))], "are exchanged. With a cache"),
        ([(RUN, RUN.replace(", past_kv =", " ="))], ": raised TypeError: tuple indices must be"),
        ([(RUN, RUN.replace(", past_kv =", " ="))], "`logits, past_kv = model(...)`). Tokens"),
        ([(RUN, "pass")], ": raised NameError: name 'logits' is not defined."),
        (
            [(RUN, RUN.replace("past_kv=past_kv, use_cache=use_cache", "use_cache, past_kv"))],
            "on by name: past_",
        ),
        ([(FEED, FEED.replace("ids = token[:, None]", "ids = input_ids"))], "on top of what the c"),
        ([(FEED, LAST)], "[5, 6], expected [5, 1]. Of the text, the tokens between"),
        (
            [(FEED, LAST.replace("ids = ", "ids = token[:, None] if use_cache else "))],
            "expected [5, 6, 7, 8, 9, 10]. Of the text, the tokens between",
        ),
        (
            [(FEED, LAST + " if use_cache else torch.cat([ids, token[:, None]], dim=1)")],
            "The prompt is run again with each new token",
        ),
        (
            [(FEED, FEED.replace("token[:, None] if use_cache else ", "")), (RUN, NOT_KEPT)],
            "no cache is handed on",
        ),
        ([(FEED, FEED.replace("dim=1", "dim=0"))], "A text is continued along dim=1"),
        (
            [(FEED, FEED.replace("[ids, token[:, None]]", "[token[:, None], ids]"))],
            "tokens that come",
        ),
        ([(FEED, FEED + "[:, -8:]")], "expected [5, 6, 7, 8, 9, 10]"),
        ([(FEED, "pass")], "The prompt is run again and again"),
        ([(FEED, GREEDY)], "The token that was drawn goes in next"),
        ([(FEED, AGAIN)], "The token that was drawn goes in next"),
        ([(FEED, f"input_ids[:, -1] = token; {FEED}")], "input_ids, afterwards, is"),
        ([(FEED, FEED.replace("token[:, None] if", "token[:, None].cpu() if"))], "another device"),
        (
            [(FEED, FEED.replace("ids = token", "ids = token.flip(0)"))],
            "tokens that come is",
        ),
        ([(RUN, RUN.replace("ids,", "input_ids,"))], "The prompt is run again and again"),
        (
            [(RUN, RUN.replace("logits, past_kv", "logits, _"))],
            "is [0, 0], expected [0, 5]. What a run",
        ),
        ([(RUN, RUN.replace("=past_kv", "=None"))], "past_kv is not handed on"),
        ([(RUN, RUN.replace("logits, past_kv =", "logits ="))], "the model returns two things"),
        ([(RUN, RUN.replace("=use_cache", "=True"))], "also where use_cache=False"),
        ([(RUN, RUN.replace(", use_cache=use_cache", ""))], "also where use_cache=True"),
        (
            [(IDS, IDS + "    past_kv = None\n")],
            "past_kv that is handed to decode_loop is not used",
        ),
        ([(PICK, PICK.replace("-1", "0"))], "the tensor of tokens that come is"),
        ([(PICK, "token = logits[:, -1].argmax(-1)")], "none is drawn, or a seed is set"),
        ([(PICK, PICK.replace("[:, -1]", "[:, -1].softmax(-1)"))], "500 draws begin with"),
        ([(PICK, PICK.replace("[:, -1]", "[:, -1].clamp(min=0)"))], "500 draws begin with"),
        ([(PICK, PICK.replace("[:, -1]", "[:, -1] * 2"))], "500 draws begin with"),
        (
            [(PICK, "sampling.pop('top_p', 0); " + PICK)],
            "With temperature=1.5, top_p=0.8 and use_c",
        ),
        (
            [(PICK, "sampling.pop('top_k', 0); " + PICK)],
            "With temperature=0.6, top_k=4 and use_cac",
        ),
        ([(PICK, "sampling.pop('generator', 0); " + PICK)], "The same generator has to give"),
        ([(PICK, PICK.replace("**s", SEED + ", **s"))], "Without a generator the same tokens"),
        (
            [(PICK, f"token = {ONE} if sampling.get('temperature', 1) else {PICK[8:]}")],
            "500 draws begin with",
        ),
        ([("torch.where(stopped, stop_token, token)", "token")], "stop_token="),
        ([("stopped.all()", "stopped.any()")], "stop_token="),
        ([("yield token", "yield token[:, None]")], "of shape (2, 1), expected one token per row"),
    ],
)
def test_wrong_loop(changes, words):
    assert words in refused("decode_loop", *changes)


@pytest.mark.parametrize(("answer", "advice"), WRONG_LOOPS)
def test_each_mistake_has_a_name(answer, advice):
    with pytest.raises(AssertionError, match=re.escape(advice)):
        checks.check_decode_loop(answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda *given, **options: None, "'NoneType' object is not iterable"),
        (lambda *given, **options: [*decode_loop(*given, **options)], "as soon as it is known"),
        (
            lambda *given, **options: map(torch.Tensor.tolist, decode_loop(*given, **options)),
            "list",
        ),
    ],
)
def test_wrong_kind_of_loop(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_decode_loop(answer)


@torch.no_grad()
def by_position(model, input_ids, max_new_tokens, use_cache, past_kv=None, stop_token=None, **how):
    """The text in one tensor; what goes in is cut from it."""
    text, seen = input_ids.clone(), 0
    for _ in range(max_new_tokens):
        logits, past_kv = model(text[:, seen:], past_kv, use_cache)
        token = next_token(logits[:, -1, :], **how)
        if stop_token is not None and text.size(1) > input_ids.size(1):
            over = (text[:, input_ids.size(1) :] == stop_token).any(1)
            token = token.masked_fill(over, stop_token)
        seen = text.size(1) if use_cache else 0
        text = torch.cat([text, token.unsqueeze(1)], dim=-1)
        yield token
        if stop_token is not None and (text[:, input_ids.size(1) :] == stop_token).any(1).all():
            break


@torch.no_grad()
def two_phases(model, input_ids, max_new_tokens, use_cache, past_kv=None, stop_token=None, **how):
    """Prefill, and then a loop of its own for each way."""
    if not max_new_tokens:
        return
    logits, past_kv = model(input_ids=input_ids, past_kv=past_kv, use_cache=use_cache)
    token, tokens = next_token(logits[:, -1], **how), []
    over = torch.zeros_like(token, dtype=torch.bool)
    while True:
        if stop_token is not None:
            token = token.where(~over, stop_token)
            over |= token == stop_token
        tokens.append(token)
        yield token
        if len(tokens) == max_new_tokens or bool(over.all()):
            return
        if use_cache:
            logits, _ = model(token.view(-1, 1), past_kv=past_kv, use_cache=True)
        else:
            logits, _ = model(torch.column_stack([input_ids, *tokens]))
        token = next_token(logits[:, -1], **how)


def inner(model, ids, new, use_cache, past_kv=None, stop_token=None, **sampling):
    yield from decode_loop(model, ids, new, use_cache, past_kv, stop_token, **sampling)


def by_inverse(model, ids, new, use_cache, past_kv=None, stop_token=None, **sampling):
    """Draws with numbers of its own, from the same probabilities."""
    if sampling.get("temperature") == 0 or {"top_k", "top_p"} & {*sampling}:
        yield from decode_loop(model, ids, new, use_cache, past_kv, stop_token, **sampling)
        return
    generator = sampling.get("generator")
    for _ in range(new):
        with torch.no_grad():
            logits, past_kv = model(ids, past_kv=past_kv, use_cache=use_cache)
        weights = (logits[:, -1].double() / sampling.get("temperature", 1.0)).softmax(-1)
        drawn = torch.rand(len(ids), 1, generator=generator, dtype=torch.float64)
        token = (weights.cumsum(-1) < drawn).sum(-1).clamp(max=weights.size(-1) - 1)
        yield token
        ids = token[:, None] if use_cache else torch.cat([ids, token[:, None]], dim=1)


@pytest.mark.parametrize("answer", [decode_loop, by_position, two_phases, inner, by_inverse])
def test_right_loops_pass(answer):
    checks.check_decode_loop(answer)
