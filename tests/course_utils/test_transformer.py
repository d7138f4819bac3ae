"""The model's interface, its caches, and the files it is loaded from."""

import json
import os
import pickle

import pytest
import torch
from helpers import SMALL, cases_for, random_ids, small_model
from reference import gpt2_logits, loop_logits

from course_utils.attention import FusedAttention, MultiHeadAttention
from course_utils.evaluation import kv_evaluate
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import (
    CONFIG,
    DecoderOnlyTransformer,
    choose_device,
    fuse_attention,
    load_config,
    load_model,
    load_weights,
)

ASSIGNMENT = {"vocab_size": 1000, "d_model": 50, "d_ff": 100, "num_layers": 2, "max_seq_len": 128}
CACHES = [GrowingCache, PreallocatedCache]


def assignment_state():
    """Names and shapes of the original assignment's checkpoint, written out by hand."""
    shapes = {"token_embedding.weight": (1000, 50), "pos_embedding.weight": (128, 50)}
    for i in range(2):
        shapes |= {f"layers.{i}.attention.W_{x}.weight": (50, 50) for x in "qkvo"}
        shapes |= {
            f"layers.{i}.feed_forward.fc1.weight": (100, 50),
            f"layers.{i}.feed_forward.fc1.bias": (100,),
            f"layers.{i}.feed_forward.fc2.weight": (50, 100),
            f"layers.{i}.feed_forward.fc2.bias": (50,),
        }
        for norm in ("norm1", "norm2"):
            shapes |= {f"layers.{i}.{norm}.weight": (50,), f"layers.{i}.{norm}.bias": (50,)}
    shapes |= {"norm.weight": (50,), "norm.bias": (50,)}
    shapes |= {"output_projection.weight": (1000, 50), "output_projection.bias": (1000,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_the_assignments_checkpoint_loads_strictly(tmp_path):
    torch.manual_seed(0)
    torch.save(assignment_state(), tmp_path / "model.pt")
    model = DecoderOnlyTransformer(**ASSIGNMENT)
    load_weights(model, tmp_path / "model.pt")
    assert model(random_ids(2, 128, 1000))[0].shape == (2, 128, 1000)


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_logits_agree_with_two_independent_implementations(num_heads):
    model = small_model(num_heads=num_heads)
    state = model.state_dict()
    ids = random_ids(1, 12)
    ours = model(ids)[0][0].detach().numpy()
    by_loop = loop_logits(state, ids[0].tolist(), num_heads)
    by_gpt2 = gpt2_logits(state, ids[0].tolist(), num_heads)
    assert abs(by_loop - by_gpt2).max() < 1e-9
    assert abs(ours - by_loop).max() < 1e-9


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_cache_holds_what_it_should(cache, dtype):
    model = small_model(dtype=dtype)
    past_kv = cache(model, 3)
    assert past_kv.length == 0
    logits, same = model(random_ids(3, 5), past_kv, use_cache=True)
    assert same is past_kv
    assert logits.dtype == dtype
    assert past_kv.length == 5
    model(random_ids(3, 4), past_kv, use_cache=True)
    assert past_kv.length == 9
    one_position = 2 * SMALL["num_layers"] * SMALL["d_model"] * torch.finfo(dtype).bits // 8
    positions = 9 if cache is GrowingCache else SMALL["max_seq_len"]
    assert past_kv.nbytes == 3 * positions * one_position


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_caches_give_the_same_numbers_bit_for_bit(dtype):
    model = small_model(dtype=dtype)
    ids = random_ids(2, 10)
    logits = []
    for cache in CACHES:
        past_kv = cache(model, 2)
        parts = [model(part, past_kv, use_cache=True)[0] for part in ids.split([4, 3, 1, 1, 1], 1)]
        logits.append(torch.cat(parts, dim=1))
    assert torch.equal(*logits)


def test_the_growing_cache_copies_and_the_preallocated_one_does_not():
    model = small_model()
    growing, preallocated = (cache(model, 1) for cache in CACHES)
    addresses = {growing: set(), preallocated: set()}
    for _ in range(4):
        for past_kv in addresses:
            model(random_ids(1, 1), past_kv, use_cache=True)
            addresses[past_kv].add((past_kv.keys[0].data_ptr(), past_kv.keys[0].shape))
    assert len(addresses[growing]) == 4
    assert len(addresses[preallocated]) == 1


@pytest.mark.parametrize("num_heads", [1, 4])
def test_fused_attention_changes_nothing_but_the_speed(num_heads):
    model = small_model(num_heads=num_heads)
    fused = fuse_attention(model)
    assert all(type(layer.attention) is FusedAttention for layer in fused.layers)
    assert type(model.layers[0].attention) is MultiHeadAttention
    report = kv_evaluate(fused, cases_for(model))
    assert report.all_passed, report


def test_no_cache_is_returned_when_none_was_asked_for():
    assert small_model()(random_ids(1, 3))[1] is None


@pytest.mark.parametrize(
    ("ids", "cached", "words"),
    [
        (torch.zeros(25, dtype=torch.long)[None], 0, "0 cached \\+ 25 new tokens do not fit"),
        (torch.zeros(3, dtype=torch.long)[None], 22, "22 cached \\+ 3 new tokens do not fit"),
        (torch.zeros(3, dtype=torch.long), 0, "input_ids.unsqueeze"),
        (torch.zeros(1, 0, dtype=torch.long), 0, "seq_len >= 1"),
    ],
)
def test_ids_that_do_not_fit_are_refused_and_the_cache_is_left_alone(ids, cached, words):
    model = small_model()
    past_kv = None
    if cached:
        _, past_kv = model(random_ids(1, cached), use_cache=True)
    with pytest.raises(ValueError, match=words):
        model(ids, past_kv, use_cache=True)
    if cached:
        assert past_kv.length == cached


def test_a_cache_of_another_batch_size_is_refused():
    model = small_model()
    _, past_kv = model(random_ids(2, 3), use_cache=True)
    with pytest.raises(ValueError, match="cache holds 2 sequences and 1 came in"):
        model(random_ids(1, 1), past_kv, use_cache=True)
    assert past_kv.length == 3


def test_past_kv_without_use_cache_is_refused():
    model = small_model()
    _, past_kv = model(random_ids(1, 3), use_cache=True)
    with pytest.raises(ValueError, match="use_cache=True as well"):
        model(random_ids(1, 1), past_kv)


def test_heads_that_do_not_divide_the_model_are_refused():
    with pytest.raises(ValueError, match="num_heads=3"):
        DecoderOnlyTransformer(**SMALL | {"num_heads": 3})


def test_auto_device_is_one_rule(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda' is not available here. Choose from: auto, mps"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="'gpu' is not available"):
        choose_device("gpu")


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    target = tmp_path / "was_run"
    for save in (torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))):
        save({"norm.weight": RunsCode(target)}, tmp_path / "evil.pt")
        with pytest.raises(ValueError, match="is not a plain PyTorch state dict"):
            load_weights(small_model(), tmp_path / "evil.pt")
    assert not target.exists()


def test_truncated_empty_and_wrong_weights_are_named(tmp_path):
    model = small_model(dtype=torch.float32)
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pt is not a plain PyTorch state dict"):
            load_weights(model, path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds no state dict"):
        load_weights(model, path)
    torch.save(small_model(d_ff=64).state_dict(), path)
    with pytest.raises(ValueError, match=r"does not fit the model: .*fc1.weight"):
        load_weights(model, path)
    with pytest.raises(FileNotFoundError):
        load_weights(model, tmp_path / "missing.pt")


def test_weights_without_names_and_complex_ones_are_refused(tmp_path):
    model = small_model()
    before = model.norm.weight.clone()
    state, path = model.state_dict(), tmp_path / "weights.pt"
    torch.save(dict(enumerate(state.values())), path)
    with pytest.raises(ValueError, match=r"weights\.pt holds no state dict: .*names to tensors"):
        load_weights(model, path)
    torch.save(state | {"norm.weight": state["norm.weight"] * 1j}, path)
    with pytest.raises(ValueError, match="complex numbers in norm.weight"):
        load_weights(model, path)
    assert torch.equal(model.norm.weight, before)


def test_bad_configs_are_named(tmp_path):
    path = tmp_path / "config.json"
    for text, words in (("{", "not valid JSON"), ("[1]", "whole numbers"), ('{"a": "b"}', "whole")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            load_config(path)


def test_the_shipped_model_loads_as_described():
    model = load_model(device="cpu")
    config = json.loads(CONFIG.read_text())
    assert model.max_seq_len == config["max_seq_len"] >= 1280
    assert not model.training
    assert load_model(device="cpu", dtype=torch.bfloat16).dtype == torch.bfloat16
