"""The rooms of chapter 12 agree with `transformers` and `tokenizers`."""

import inspect
import json
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers import cases_for, random_ids, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from source import code_of, definitions
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from course_utils.evaluation import kv_evaluate
from course_utils.going_further import gpt2
from course_utils.going_further.gpt2 import bpe
from course_utils.going_further.gpt2 import figures as plots
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import ROOT

NOTEBOOK = ROOT / "notebooks" / "going_further" / "12_real_weights.ipynb"
SMALL = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 24}
SHAPES = {
    "as GPT-2": {},
    "one head, one layer": {"n_head": 1, "n_layer": 1},
    "square feed-forward": {"n_inner": 16},
    "odd sizes": {"vocab_size": 51, "n_embd": 18, "n_head": 3, "n_inner": 7, "n_layer": 3},
    "eleven layers": {"n_layer": 11, "n_embd": 8, "n_head": 2},
    "untied": {"tie_word_embeddings": False},
    "erf": {"activation_function": "gelu"},
    "relu, another eps": {"activation_function": "relu", "layer_norm_epsilon": 1e-2},
    "PyTorch's tanh": {"activation_function": "gelu_pytorch_tanh"},
}


@pytest.fixture(autouse=True)
def no_progress_bars():
    logging.disable_progress_bar()


def library_model(seed=0, **changes):
    """A GPT-2 of transformers whose every parameter is random, biases and gains too."""
    torch.manual_seed(seed)
    ends = {"bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(**SMALL | ends | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def written(tmp_path):
    """A checkpoint folder as transformers writes it."""
    library_model().save_pretrained(tmp_path)
    return tmp_path


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def change_tensors(folder, change):
    tensors = load_file(folder / gpt2.FILE)
    change(tensors)
    save_file(tensors, folder / gpt2.FILE, metadata={"format": "pt"})


@torch.no_grad()
def error(peer, model, ids):
    return (peer(ids).logits - model(ids)[0]).abs().max().item()


def library_ids(peer, ids, new):
    options = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return peer.generate(ids, attention_mask=torch.ones_like(ids), **options)


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_a_loaded_model_is_the_library_s(tmp_path, changes):
    peer = library_model(**changes)
    peer.save_pretrained(tmp_path)
    ids = random_ids(3, 20)
    assert error(peer, gpt2.load_gpt2(tmp_path, "cpu"), ids) < 1e-4
    peer, model = peer.double(), gpt2.load_gpt2(tmp_path, "cpu", torch.float64)
    assert error(peer, model, ids) < 1e-9
    told = library_ids(peer, ids[:, :6], 18)
    for cache in (GrowingCache, PreallocatedCache):
        assert torch.equal(model.generate(ids[:, :6], 18, 0, past_kv=cache(model, 3)), told)
    assert torch.equal(model.generate(ids[:, :6], 18, 0, use_cache=False), told)


@settings(max_examples=8, deadline=None)
@given(
    heads=st.integers(1, 4),
    d_head=st.integers(1, 6),
    layers=st.integers(1, 3),
    inner=st.none() | st.integers(1, 20),
    tied=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape_is_the_library_s(tmp_path_factory, heads, d_head, layers, inner, tied, seed):
    sizes = {"n_head": heads, "n_embd": heads * d_head, "n_layer": layers, "n_inner": inner}
    peer = library_model(seed, tie_word_embeddings=tied, **sizes).double()
    folder = tmp_path_factory.mktemp("any")
    peer.save_pretrained(folder)
    model = gpt2.load_gpt2(folder, "cpu", torch.float64)
    assert error(peer, model, random_ids(2, 9, seed=seed)) < 1e-9


@pytest.mark.authors
def test_the_cache_is_right_with_the_library_s_logits_as_the_stored_ones(written):
    peer = GPT2LMHeadModel.from_pretrained(written, dtype=torch.float64).eval()
    model = gpt2.load_gpt2(written, "cpu", torch.float64)
    shapes = ((1, 5), (2, 4))
    cases = cases_for(lambda ids: (peer(ids).logits.detach(),), shapes)
    assert kv_evaluate(model, cases).all_passed
    assert model.output_projection.weight is model.token_embedding.weight
    change_config(written, activation_function="gelu", layer_norm_epsilon=1e-3)
    wrong = gpt2.load_gpt2(written, "cpu", torch.float64)
    assert not kv_evaluate(wrong, cases).all_passed
    assert kv_evaluate(wrong, cases_for(wrong, shapes)).all_passed


def test_forms_in_which_checkpoints_come(tmp_path):
    """Without "transformer.", with masks, with the head twice, in several files, in 16 bits."""
    peer = library_model()
    right = gpt2.translate(
        {n.removeprefix(gpt2.PREFIX): t for n, t in peer.state_dict().items()}, SMALL["n_layer"]
    )
    peer.transformer.save_pretrained(tmp_path / "bare")
    peer.save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    peer.save_pretrained(tmp_path / "hub")

    def as_on_the_hub(tensors):
        for i in range(SMALL["n_layer"]):
            mask = torch.ones(24, 24).tril()[None, None]
            tensors[f"transformer.h.{i}.attn.bias"] = mask
            tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()

    change_tensors(tmp_path / "hub", as_on_the_hub)
    for form in ("bare", "sharded", "hub"):
        state = gpt2.load_gpt2(tmp_path / form, "cpu").state_dict()
        assert state.keys() == right.keys(), form
        assert all(torch.equal(state[name], right[name]) for name in right), form
    peer.half().save_pretrained(tmp_path / "half")
    assert gpt2.load_gpt2(tmp_path / "half", "cpu").dtype == torch.float32
    peer.double().save_pretrained(tmp_path / "double")
    model = gpt2.load_gpt2(tmp_path / "double", "cpu", torch.float64)
    assert error(peer.double(), model, random_ids(1, 5)) < 1e-9


def remove(name):
    return lambda folder: change_tensors(folder, lambda tensors: tensors.pop(name))


def put(name, *shape):
    return lambda folder: change_tensors(
        folder, lambda tensors: tensors.update({name: torch.zeros(shape)})
    )


def only_a_pickle(folder):
    (folder / gpt2.FILE).rename(folder / "pytorch_model.bin")


def truncate(folder):
    whole = (folder / gpt2.FILE).read_bytes()
    (folder / gpt2.FILE).write_bytes(whole[: len(whole) // 2])


def pointer(folder):
    (folder / gpt2.FILE).write_text("version https://git-lfs.github.com/spec/v1\n")


def lose_a_shard(folder):
    library_model().save_pretrained(folder / "parts", max_shard_size="10KB")
    (folder / gpt2.FILE).unlink()
    for path in (folder / "parts").glob("model*"):
        path.rename(folder / path.name)
    next(folder.glob("model-00002*")).unlink()


BROKEN = {
    "empty": (lambda f: [p.unlink() for p in f.iterdir()], OSError, "holds no config.json"),
    "pickle": (only_a_pickle, OSError, "pytorch_model.bin"),
    "shard": (lose_a_shard, OSError, "model-00002"),
    "truncated": (truncate, ValueError, "not a whole safetensors file"),
    "pointer": (pointer, ValueError, "LFS"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), ValueError, "not valid JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), ValueError, "one JSON object"),
    "llama": (lambda f: change_config(f, model_type="llama"), ValueError, "'llama'"),
    "no size": (lambda f: change_config(f, n_embd=None), ValueError, "n_embd"),
    "activation": (lambda f: change_config(f, activation_function="swish"), ValueError, "'swish'"),
    "heads": (lambda f: change_config(f, n_head=3), ValueError, "num_heads=3"),
    "missing": (remove("transformer.h.1.ln_2.bias"), ValueError, "Missing: h.1.ln_2.bias"),
    "unexpected": (put("score.weight", 2, 16), ValueError, "Unexpected: score.weight"),
    "one layer more": (put("transformer.h.2.ln_1.bias", 16), ValueError, "Unexpected: h.2.ln_1"),
    "shape": (put("transformer.wpe.weight", 23, 16), ValueError, "wpe.weight has shape (23, 16)"),
    "turned": (put("transformer.h.0.mlp.c_fc.weight", 64, 16), ValueError, "(64, 16)"),
    "untied": (put("lm_head.weight", 50, 16), ValueError, "tie_word_embeddings"),
    **{
        name: (lambda f, n=name, v=not only: change_config(f, **{n: v}), ValueError, name)
        for name, only in gpt2.ONLY.items()
    },
}


@pytest.mark.parametrize(("broken", "kind", "told"), BROKEN.values(), ids=BROKEN)
def test_a_folder_that_cannot_be_loaded_is_refused_with_a_reason(written, broken, kind, told):
    broken(written)
    with pytest.raises(kind) as raised:
        gpt2.load_gpt2(written, "cpu")
    assert told in str(raised.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        gpt2.load_gpt2(tmp_path / "nowhere")


def test_the_shape_of_the_real_one():
    shapes = gpt2.expected_shapes(50257, 768, 3072, 12, 1024)
    assert sum(map(math.prod, shapes.values())) == 124_439_808
    with torch.device("meta"):
        model = gpt2.GPT2(50257, 768, 3072, 12, 1024, num_heads=12)
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


def test_the_course_s_model_runs_in_the_library(tmp_path):
    model = small_model()
    gpt2.export_gpt2(model, tmp_path)
    peer = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert peer.dtype == torch.float64 and peer.lm_head.bias is None
    ids = random_ids(3, 20)
    assert error(peer, model, ids) < 1e-9
    assert torch.equal(library_ids(peer, ids[:, :6], 18), model.generate(ids[:, :6], 18, 0))
    again = gpt2.load_gpt2(tmp_path, "cpu", torch.float64)
    assert error(peer, again, ids) < 1e-9
    gpt2.export_gpt2(model.float(), tmp_path / "single")
    single = GPT2LMHeadModel.from_pretrained(tmp_path / "single").eval()
    assert error(single, model, ids) < 1e-4


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_there_and_back_changes_no_bit(tmp_path, changes):
    library_model(**changes).save_pretrained(tmp_path / "theirs")
    gpt2.export_gpt2(gpt2.load_gpt2(tmp_path / "theirs", "cpu"), tmp_path / "ours")
    theirs, ours = (load_file(tmp_path / name / gpt2.FILE) for name in ("theirs", "ours"))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    arguments = [
        gpt2.gpt2_arguments(json.loads((tmp_path / name / "config.json").read_text()))
        for name in ("theirs", "ours")
    ]
    assert arguments[0] == arguments[1]
    peers = [GPT2LMHeadModel.from_pretrained(tmp_path / name).eval() for name in ("theirs", "ours")]
    with torch.no_grad():
        first, second = (peer(random_ids(2, 9)).logits for peer in peers)
    assert torch.equal(first, second)


@settings(max_examples=30, deadline=None)
@given(v=st.integers(1, 9), d=st.integers(2, 12), seed=st.integers(0, 999))
def test_a_folded_head_gives_the_same_logits(v, d, seed):
    torch.manual_seed(seed)
    weight, bias, gain, shift = (torch.randn(s).double() for s in ((v, d), (v,), (d,), (d,)))
    n = F.layer_norm(torch.randn(5, d).double(), (d,))
    folded = gpt2.fold_head(weight, bias, gain, shift)
    assert torch.allclose((n + 1) @ folded.T, (gain * n + shift) @ weight.T + bias, atol=1e-9)


def test_gpt2_is_looked_for_here_and_fetched_only_when_asked(tmp_path, monkeypatch):
    import huggingface_hub

    def fetch(*args, **options):
        raise ConnectionError("fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("GPT2_FOLDER", raising=False)
    with pytest.raises(FileNotFoundError, match="neither"):
        gpt2.find_gpt2()
    with pytest.raises(ConnectionError, match="fetched"):
        gpt2.find_gpt2(download=True)
    snapshot = tmp_path / "models--gpt2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--gpt2" / "refs").mkdir()
    (tmp_path / "models--gpt2" / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError):
        gpt2.find_gpt2()
    (snapshot / gpt2.FILE).write_bytes(b"")
    assert gpt2.find_gpt2() == snapshot
    monkeypatch.setenv("GPT2_FOLDER", str(tmp_path))
    assert gpt2.find_gpt2() == tmp_path


def library_tokenizer(texts, num_merges):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    size = 256 + num_merges
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=bpe.BYTES, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def words_of(texts):
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Counter(word for text in texts for word, _ in cut.pre_tokenize_str(text))


WORD = st.text("abcé", min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(words=st.lists(WORD, min_size=1, max_size=12), num_merges=st.integers(0, 12))
def test_merges_are_the_library_s(words, num_merges):
    texts = [" ".join(words)]
    tokenizer = library_tokenizer(texts, num_merges)
    merges = bpe.learn_merges(words_of(texts), num_merges)
    assert json.loads(tokenizer.to_str())["model"]["merges"] == [list(pair) for pair in merges]
    for word in words_of(["".join(reversed(texts[0]))]):
        text = decoders.ByteLevel().decode([word])
        assert tokenizer.encode(text).tokens == bpe.split_word(word, merges)


def test_a_tokenizer_is_read_in_either_form(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        bpe.load_tokenizer(tmp_path)
    tokenizer = library_tokenizer(["the then hen", "they"], 3)
    tokenizer.model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text()) | {bpe.END: 259}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    two_files = bpe.load_tokenizer(tmp_path)
    tokenizer.add_special_tokens([bpe.END])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    one_file = bpe.load_tokenizer(tmp_path)
    for text in ("the hen", " Zoë 🗝", f"hen{bpe.END}then"):
        ids = two_files.encode(text).ids
        assert ids == one_file.encode(text).ids
        assert two_files.decode(ids, skip_special_tokens=False) == text
    assert two_files.encode(bpe.END).ids == [259]


SAME = {
    "merge_pair": bpe,
    "learn_merges": bpe,
    "split_word": bpe,
    "split_c_attn": gpt2,
    "gelu_new": gpt2,
    "translate": gpt2,
    "fold_head": gpt2,
    "GPT2FeedForward": gpt2,
    "GPT2": gpt2,
}


@pytest.mark.parametrize("name", SAME)
def test_the_chapter_and_the_package_are_the_same_code(name):
    package = definitions(inspect.getsource(getattr(SAME[name], name)))
    assert package == {name: definitions(code_of(NOTEBOOK))[name]}


def test_the_figure_of_the_mistakes_draws_each_with_what_saw_it():
    names = ["refused", "seen", "not seen"]
    error = pd.DataFrame({c: [np.nan, 0.5, 1e-6] for c in plots.CHECKPOINTS}, index=names)
    same = pd.DataFrame({c: [False, False, True] for c in plots.CHECKPOINTS}, index=names)
    error.loc["not seen", "fresh"] = 0
    (ax,) = plots.mistakes(error, same, {"tolerance": 1e-9}).axes
    full, hollow = [], []
    for line in ax.get_lines():
        if line.get_linestyle() == "None":
            found = hollow if line.get_markerfacecolor() == "white" else full
            found += [x for x in line.get_xdata() if not np.isnan(x)]
    assert full == [0.5] * 3
    assert sorted(hollow) == [1e-11, 1e-6, 1e-6]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    assert any("refused" in text.get_text() for text in ax.texts)


def test_the_other_figures_draw_what_they_are_given():
    x = np.linspace(-1, 1, 5)
    left, right = plots.gelu(x, {"a": x, "b": x + 1e-4, "c": x * 2}).axes
    assert [list(line.get_ydata()) for line in left.get_lines()][2] == list(x * 2)
    assert np.allclose(right.get_lines()[0].get_ydata(), 1)
    table = pd.DataFrame({"one": [1.0, 2.0], "other": [1.0, 1.5]})
    (ax,) = plots.merges(table, 4.0).axes
    drawn = [list(line.get_ydata()) for line in ax.get_lines()]
    assert drawn == [[1.0, 2.0], [1.0, 1.5], [4.0, 4.0]]
