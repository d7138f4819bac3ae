"""The drawings that the chapters open with: what they state is what the chapters' code does."""

import torch
from figure_sight import texts_of
from helpers import random_ids, small_model
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch

from course_utils.going_further.flash import flash_attention as flash
from course_utils.going_further.smaller.eviction import eviction_mask
from course_utils.going_further.smaller.window import band_mask
from course_utils.plots import drawings
from course_utils.plots.drawings import fewer, grammar
from course_utils.transformer import load_config


def words_of(ax):
    return [text.get_text() for text, _ in texts_of(ax.figure)]


def painted(ax, look, left=0.0, right=9.0, low=0.0, high=9.0):
    """The middles of the things of one colour between these edges, the upper left first."""
    color = to_hex(look["facecolor"])
    things = [p for p in ax.patches if p.get_fill() and not isinstance(p, FancyArrowPatch)]
    things = [p for p in things if to_hex(p.get_facecolor()) == color]
    boxes = [p.get_path().get_extents(p.get_patch_transform()) for p in things]
    found = [(round((b.x0 + b.x1) / 2, 3), round((b.y0 + b.y1) / 2, 3)) for b in boxes]
    inside = [(x, y) for x, y in found if left < x < right and low < y < high]
    return sorted(inside, key=lambda place: (-place[1], place[0]))


def test_the_parts_that_a_token_reads_are_those_that_run_and_have_weights():
    model, ran, stored = small_model(num_layers=load_config()["num_layers"]), [], []
    names = {"norm": "last norm", "output_projection": "projection"}
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)):
            part, _, rest = name.partition(".")
            told = (
                f"layer {int(rest[0]) + 1}" if part == "layers" else names.get(part, "embeddings")
            )
            module.register_forward_hook(lambda *_, told=told: ran.append(told))
    cache = model(random_ids(1, 3), use_cache=True)[1]
    ran.clear()
    append = cache.append
    cache.append = lambda layer, k, v: stored.append(f"layer {layer + 1}") or append(layer, k, v)
    model(random_ids(1, 1), past_kv=cache, use_cache=True)
    ax = drawings.one_token_reads().axes[0]
    boxes = sorted((t.get_position()[0], t.get_text()) for t in ax.texts if t.get_rotation() == 90)
    assert [text for _, text in boxes] == list(dict.fromkeys(ran))
    for look in (grammar.KEY, grammar.VALUE):
        assert [x for x, _ in painted(ax, look)] == [
            round(x, 3) for x, text in boxes if text in stored
        ]


def test_the_scores_in_memory_are_those_of_the_plain_attention_and_of_a_tile(monkeypatch):
    made, absorb = [], flash.absorb
    monkeypatch.setattr(
        flash,
        "absorb",
        lambda state, scores, v: made.append((state, scores)) or absorb(state, scores, v),
    )
    q, k, v = torch.randn(3, fewer.LENGTH, 3)
    flash.flash_attention(q, k, v, tile=(fewer.TILE, fewer.TILE))
    ax = drawings.square_and_tile().axes[0]
    state, scores = made[-1]
    assert len(painted(ax, grammar.SEEN, right=4)) == (q @ k.T).numel()
    assert len(painted(ax, grammar.SEEN, left=4)) == max(scores.numel() for _, scores in made)
    assert {f"{(q @ k.T).numel()} scores", f"{scores.numel()} scores"} < set(words_of(ax))
    rows = {y for _, y in painted(ax, grammar.SEEN, left=4)}
    assert [part.size(0) for part in state] == [len(rows)] * 3
    assert len(painted(ax, grammar.VALUE)) == state[2].numel()


def kept(ax, left, low):
    """For each head of one of 09's caches that keeps something, the tokens that it keeps."""
    rows = {}
    for x, y in painted(ax, grammar.KEY, left, left + 2.6, low, low + 1.0):
        rows.setdefault(y, []).append(round((x - left - 0.15) / 0.2))
    return list(rows.values())


def test_what_the_smaller_caches_keep_is_what_the_chapters_keep():
    ax = drawings.what_smaller_caches_keep().axes[0]
    heads, tokens = fewer.HEADS, fewer.TOKENS
    window = band_mask(1, tokens, 3, 1)[0].nonzero().flatten().tolist()
    assert kept(ax, 6.25, 2.7) == [window] * heads
    k = torch.zeros(1, heads, tokens, 1)
    for head, used in enumerate(fewer.USED):
        k[0, head, list(used[:2])] = torch.tensor([[9.0], [11.0]])  # what is looked at most
    seen = eviction_mask(torch.ones_like(k), k, budget=4, recent=2)[0, :, -1]
    assert kept(ax, 3.5, 0.7) == [row.nonzero().flatten().tolist() for row in seen]
    everything = list(range(tokens))
    assert kept(ax, 0.5, 1.7) == kept(ax, 6.25, 0.7) == [everything] * heads
    assert kept(ax, 3.5, 2.7) == [everything] * 2
