"""What the check cells of the two caches call (notebook 04)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..cache_bugs import NoPositionOffset, diagnose
from ..evaluation import in_portions
from ..generation import generate
from .common import close, load_weights, pair, refuse_known, same, tiny_model, unchanged, verdict


@verdict
def check_cache(cache_class: type) -> str:
    """Notebook 04, exercises 1 and 5. Returns a verdict; raises AssertionError on a wrong cache."""
    name = cache_class.__name__
    for batch in (1, 2):
        model = tiny_model()
        cache = cache_class(model, batch)
        whole = torch.randn(2, model.num_layers, batch, model.num_heads, 9, model.d_head)
        at = 0
        for portion in (3, 1, 2, 3):
            for layer in range(model.num_layers):
                new = whole[:, layer, ..., at : at + portion, :].clone()
                before = new.clone()
                found = cache.append(layer, *new)
                unchanged([before], [new])
                pair(found, f"{name}.append returns two tensors: all keys, all values.")
                for what, tensor, kind in zip(("keys", "values"), found, whole, strict=True):
                    if at and same(tensor, kind[layer, ..., at : at + portion, :]):
                        raise AssertionError(
                            f"{name}.append returns only the new {what}. Attention needs those of "
                            "all positions so far."
                        )
                    close(
                        tensor,
                        kind[layer, ..., : at + portion, :],
                        f"{name}: after {at} positions and {portion} more, the tensor of {what} "
                        f"that append returns for layer {layer} (the oldest position first)",
                    )
            at += portion
            if cache.length != at:
                raise AssertionError(f"{name}.length is {cache.length} after {at} positions.")
    return f"{name} is right: chunks of 3, 1, 2 and 3 positions, two layers, one row and two."


@verdict
def check_preallocated(cache_class: type) -> str:
    """Notebook 04, exercise 5: `check_cache`, and that nothing is allocated after the start."""
    passed = check_cache(cache_class)
    model = tiny_model()
    cache = cache_class(model, 1)
    places = set()
    for _ in range(3):
        k, v = torch.randn(2, 1, model.num_heads, 1, model.d_head)
        keys, values = cache.append(0, k, v)
        places.add((keys.data_ptr(), values.data_ptr()))
    if len(places) > 1:
        raise AssertionError(
            "The returned keys lie elsewhere in memory after each append, so they were copied. "
            "Return a slice of the cache's own tensor, which is a view."
        )
    return passed + " Nothing is copied."


@verdict
def check_cached_attention(attention_class: type[nn.Module], cache_class: type) -> str:
    """Notebook 04, exercise 2. Returns a verdict; raises AssertionError on wrong attention."""
    model = tiny_model()
    reference = MultiHeadAttention(12, 3)
    layer = attention_class(12, 3)
    load_weights(layer, reference)
    x = torch.randn(2, 7, 12)
    expected = reference(x)
    close(layer(x), expected, "without a cache, the output")
    for portions in ((7,), (4, 1, 1, 1), (1,) * 7, (2, 5)):
        cache = cache_class(model, 2)
        cache.append(0, *torch.randn(2, 2, 3, 3, 4))
        found = torch.cat([layer(part, cache, 1) for part in x.split(portions, dim=1)], dim=1)
        alone = torch.cat([reference(part) for part in x.split(portions, dim=1)], dim=1)
        if len(portions) > 1 and same(found, alone):
            raise AssertionError(
                "Each chunk attends only to itself. Do q and the *returned* keys and values go "
                "into the attention?"
            )
        close(
            found,
            expected,
            f"in chunks of {portions}, as layer 1 of a cache whose layer 0 is filled, the output",
        )
    return "MultiHeadAttention is right with a cache: at once, one by one, two and then five."


@verdict
def check_cached_model(model_class: type[nn.Module]) -> str:
    """Notebook 04, exercise 3. Returns a verdict; raises AssertionError on a wrong model."""
    model = model_class(20, 12, 24, 2, 16, num_heads=3, dropout=0.0).eval()
    reference = tiny_model()
    load_weights(model, reference)
    restart = NoPositionOffset(20, 12, 24, 2, 16, num_heads=3, dropout=0.0).eval()
    load_weights(restart, reference)
    ids = torch.arange(12).view(1, 12)
    with torch.no_grad():
        expected = reference(ids)[0]
        if not isinstance(model(ids), tuple):
            raise AssertionError("forward returns two things: the logits, and past_kv.")
        close(model(ids)[0], expected, "without a cache, a logit")
        if model(ids)[1] is not None:
            raise AssertionError("forward returned a cache although use_cache=False.")
        if model(ids, use_cache=True)[1] is None:
            raise AssertionError("forward returned no cache although use_cache=True.")
        for portions in ((12,), (7, 1, 1, 1, 1, 1), (1,) * 12, (5, 7)):
            found = in_portions(model, ids, portions)
            mistakes = [
                (
                    in_portions(restart, ids, portions),
                    "Each chunk starts at position 0 again: after a prefill of 7, the next token "
                    "is at position 7. Pass past_kv.length to embed, and add it there.",
                ),
                (
                    _without_the_past(reference, ids, portions),
                    "Each chunk sees only itself. Every layer needs past_kv, and its own number.",
                ),
            ]
            if len(portions) > 1:
                refuse_known(found, mistakes)
            if not same(found, expected, 1e-4):
                raise AssertionError(
                    f"Fed in chunks of {portions}, the logits are not the uncached ones. Does each "
                    f"layer get past_kv and its own number? {diagnose(model, reference)}"
                )
    return (
        "The cached model is right on 12 tokens in four portionings. kv_evaluate comes in notebook "
        "05."
    )


def _without_the_past(model: nn.Module, ids: Tensor, portions: tuple[int, ...]) -> Tensor:
    """Logits of chunks at the right positions that do not see each other."""
    parts, start = [], 0
    for part in ids.split(portions, dim=1):
        x = nn.Sequential(*model.layers)(model.embed(part, start))
        parts.append(model.output_projection(model.norm(x)))
        start += part.size(1)
    return torch.cat(parts, dim=1)


@verdict
def check_decode_loop(decode_loop: Callable[..., Iterator[Tensor]]) -> str:
    """Notebook 04, exercise 4. Returns a verdict; raises AssertionError on a wrong loop."""
    model = tiny_model()
    fed = []
    model.register_forward_pre_hook(lambda _, args, kwargs: fed.append(args[0]), with_kwargs=True)
    prompt = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])
    expected = generate(model, prompt, 6, 0, use_cache=False)
    for use_cache, sizes in ((True, [5, 1, 1, 1, 1, 1]), (False, [5, 6, 7, 8, 9, 10])):
        fed.clear()
        tokens, refused = [], None
        try:
            tokens = list(decode_loop(model, prompt, 6, use_cache, temperature=0))
        except ValueError as error:
            refused = error
        got = [ids.size(1) for ids in fed]
        if got != sizes:
            why = "prefill, then only the new token" if use_cache else "the whole text each time"
            raise AssertionError(
                f"With use_cache={use_cache} the model was run on {got} tokens, expected {sizes}: "
                f"{why}."
            )
        if refused:
            raise refused
        close(
            torch.stack(tokens, dim=1),
            expected[:, 5:],
            f"with use_cache={use_cache}, a greedy token (does what a call returned as past_kv go "
            "into the next call?)",
        )
    return (
        "decode_loop is right: with a cache only what is new goes in, and the words are the same."
    )
