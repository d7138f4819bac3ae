"""The drawings that the chapters open with: what they state is what the chapters' code does."""

import pytest
import torch
from figure_sight import texts_of
from helpers import random_ids, small_model
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch

from course_utils.going_further import gpt2, wild
from course_utils.going_further.flash import flash_attention as flash
from course_utils.going_further.parallel.groups import in_threads
from course_utils.going_further.parallel.tensor_parallel import parallelize
from course_utils.going_further.serving.scheduling import Request, continuous, simulate
from course_utils.going_further.smaller.eviction import eviction_mask
from course_utils.going_further.smaller.window import band_mask
from course_utils.plots import drawings
from course_utils.plots.drawings import chapters, fewer, foreign, grammar
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


@pytest.mark.parametrize(("rows", "drawn"), [(1, chapters.ONE_BY_ONE), (2, chapters.SIDE_BY_SIDE)])
def test_the_requests_have_the_rows_that_the_schedule_gives_them(rows, drawn):
    """Only decoding steps take time here, so the times of a request are its steps."""
    lengths = {name: chapters.ONE_BY_ONE[0].count(name) for name in "ABC"}
    requests = {name: Request([0, 0], 1 + length) for name, length in lengths.items()}
    simulate([*requests.values()], lambda rows, each: float(each == 1), rows, continuous)
    for name, request in requests.items():
        (steps,) = [
            [step for step, who in enumerate(row, start=1) if who == name]
            for row in drawn
            if name in row
        ]
        assert steps == request.times[1:]
    assert len(drawn) == rows
    ax = drawings.one_by_one_or_side_by_side().axes[0]
    assert f"{int(max(r.times[-1] for r in requests.values()))} steps of the model" in words_of(ax)


def test_what_two_processes_hold_and_how_often_they_add_up():
    config = load_config()
    model = small_model(num_layers=1, num_heads=config["num_heads"])

    def program(group):
        part = parallelize(model, group)
        cache = part(random_ids(1, 3), use_cache=True)[1]
        units = part.layers[0].feed_forward.fc1.out_features
        rows = part.layers[0].feed_forward.fc1.weight.size(0)
        return len(group.calls), cache.keys.size(2), rows / units

    words = words_of(drawings.one_layer_two_processes().axes[0])
    sums, heads, share = zip(*in_threads(2, program), strict=True)
    assert words.count("+") == sums[0] == sums[1]
    held = [word.removeprefix("heads ").split(", ") for word in words if word.startswith("heads")]
    assert [len(numbers) for numbers in held] == list(heads)
    assert sum(held, []) == [str(head) for head in range(config["num_heads"])]
    for look in (grammar.KEY, grammar.VALUE):
        assert len(painted(drawings.one_layer_two_processes().axes[0], look)) == sum(heads)
    assert words.count("half of the\nhidden units") == share.count(0.5) == 2


def test_the_names_and_shapes_are_those_of_gpt2_and_of_the_course():
    lengths = {"V": 50, "D": 16, "F": 32, "3D": 48}  # those of `small_model`
    model = small_model(gpt2.GPT2)
    ours = model.state_dict()
    theirs = gpt2.to_gpt2(ours, model.num_layers)
    ax = drawings.names_and_shapes().axes[0]
    told = {t.get_text(): t.get_position() for t in ax.texts if t.get_fontsize() == grammar.WORDS}
    edges = [(t.get_text(), *t.get_position()) for t in ax.texts if t.get_text() in lengths]

    def shape(x, low, high):
        """The lengths on the edges of the tensor below a name, or above it."""
        near = [edge for edge in edges if abs(edge[1] - x) < 0.8 and low < edge[2] < high]
        left, above = sorted(near, key=lambda edge: edge[1])
        return lengths[left[0]], lengths[above[0]]

    for name in ("wte", "h.0.attn.c_attn", "h.0.mlp.c_fc"):
        x, y = told[name]
        assert shape(x, y - 1.1, y) == theirs[f"{gpt2.PREFIX}{name}.weight"].shape
    for name in ("token_embedding", "layers.0.feed_forward.fc1"):
        x, y = told[name]
        assert shape(x, y - 1.1, y) == ours[f"{name}.weight"].shape
    assert torch.equal(theirs["transformer.h.0.mlp.c_fc.weight"].T, ours[f"{name}.weight"])
    columns = theirs["transformer.h.0.attn.c_attn.weight"].chunk(3, dim=1)
    for name, part in zip(("W_q", "W_k", "W_v"), columns, strict=True):
        x, y = told[name]
        assert shape(x, y, y + 0.8) == part.shape
        assert torch.equal(ours[f"layers.0.attention.{name}.weight"], part.T)


def test_each_model_of_the_library_keeps_what_is_drawn():
    ax = drawings.one_adapter().axes[0]
    ids = torch.arange(foreign.TOKENS)[None]
    for name, (_, y) in ((t.get_text(), t.get_position()) for t in ax.texts):
        if name in foreign.KEPT:
            model = wild.Adapted(wild.small_model(name.lower(), layers=1))
            keys = getattr(model(ids, use_cache=True)[1].past.layers[0], "keys", None)
            held = 0 if keys is None else keys.size(2)
            assert len(painted(ax, grammar.KEY, low=y - 0.3, high=y + 0.3)) == held
