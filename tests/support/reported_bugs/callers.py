"""Wrong because of what the caller does beside the calls: an error, other weights, tensors that are
written over, gradients."""

import copy

import torch

from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import Counted
from .prefixes import FIRST, PrefixStore
from .uses import State, again, crashes, differs, off, script, words


@torch.no_grad()
def too_long(model, state):
    """A step of a script: a text that has no room is refused."""
    try:
        model(words(1, model.max_seq_len + 1), use_cache=True)
    except (ValueError, IndexError, RuntimeError):
        return


@reported("tokens_in_flight_after_an_error", script(too_long, 4, 1), script(4, 1))
class TokensInFlightAfterAnError(DecoderOnlyTransformer):
    """Positions begin after all tokens in flight; those of a call that failed stay in flight.

    Reported: requests that were given up, sgl-project/sglang#28374.
    """

    in_flight = 0

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        self.in_flight += input_ids.size(1)
        found = super().forward(input_ids, past_kv, use_cache)
        self.in_flight -= input_ids.size(1)
        return found

    def embed(self, input_ids, start=0):
        other = max(self.in_flight - input_ids.size(1), 0)
        return super().embed(input_ids, min(start + other, self.max_seq_len - input_ids.size(1)))


@reported("slot_lost_in_an_error", crashes(script(*[too_long] * 4, 4, 1)), script(4, 1))
class SlotLostInAnError(DecoderOnlyTransformer):
    """There are four slots; a call that fails takes one and never gives it back.

    Reported: blocks of a request that failed are not reclaimed, vllm-project/vllm#46283.
    """

    free = 4

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if not self.free:
            raise RuntimeError("no free slot")
        self.free -= 1
        found = super().forward(input_ids, past_kv, use_cache)
        self.free += 1
        return found


@torch.no_grad()
def trained(model, state):
    """A step of a script: the weights change, as they do in training."""
    for weight in model.parameters():
        weight.mul_(1.2)


def with_other_weights(*steps):
    """Used, given other weights, and used again."""

    def wrong(model, right):
        model, right = copy.deepcopy(model), copy.deepcopy(right)
        script(FIRST + [9])(model, right)
        trained(model, None)
        trained(right, None)
        return script(*steps)(model, right)

    return wrong


@reported("prefix_of_other_weights", with_other_weights(FIRST + [9]), script(FIRST + [9]))
class PrefixOfOtherWeights(PrefixStore):
    """Blocks of a text that the model saw before its weights changed are still used.

    Reported: training with a running server, NVIDIA-NeMo/RL#4018, vllm-project/vllm#9744.
    """

    def computed_in(self):
        return self.dtype, self.device


@reported("weights_joined_once", with_other_weights(5, 1), script(5, 1))
class WeightsJoinedOnce(DecoderOnlyTransformer):
    """For decoding, the keys' weights are copied at first use, and kept when they change.

    Reported: student repositories that fuse projections (no address).
    """

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        kept = self.__dict__.setdefault("joined", {})
        layers = [layer.attention.W_k for layer in self.layers]
        key = self.dtype, self.device
        if key not in kept:
            kept[key] = [W.weight.detach().clone() for W in layers]
        now = [W.weight.data for W in layers]
        for W, weight in zip(layers, kept[key], strict=True):
            W.weight.data = weight
        try:
            return super().forward(input_ids, past_kv, use_cache)
        finally:
            for W, weight in zip(layers, now, strict=True):
                W.weight.data = weight


def written_over(*chunks):
    """The caller writes over the logits that came out, as top-k sampling often does it."""

    @torch.no_grad()
    def wrong(model, right):
        for _ in range(2):
            state = State(words(1, 0), None, torch.zeros(1, dtype=torch.long))
            for number, chunk in enumerate(chunks):
                new = words(1, chunk, number)
                state.seen = torch.cat([state.seen, new], dim=1)
                logits, state.cache = model(new, past_kv=state.cache, use_cache=True)
                if off(logits, right, state):
                    return True
                logits.zero_()
        return False

    return wrong


@reported("logits_handed_out_twice", written_over(4, 1), again(script(4, 1), script(4, 1)))
class LogitsHandedOutTwice(DecoderOnlyTransformer):
    """The logits of a known prompt are kept, and are the same tensor that the caller has.

    Reported: outputs in a buffer that is used again, pytorch/pytorch#184102.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.known = {}

    def forward(self, input_ids, past_kv=None, use_cache=False):
        found = super().forward(input_ids, past_kv, use_cache)
        if not use_cache or past_kv is not None:
            return found
        key = self.dtype, self.device, str(input_ids.tolist())
        return self.known.setdefault(key, found[0].detach()), found[1]


def with_gradients(model, right):
    ids = words(1, 6)
    _, cache = model(ids[:, :5], use_cache=True)
    logits, _ = model(ids[:, 5:], past_kv=cache, use_cache=True)
    return differs(logits, right(ids)[0][:, 5:])


@reported("nothing_kept_with_gradients", with_gradients, script(5, 1))
class NothingKeptWithGradients(Counted):
    """Where gradients are wanted, nothing is stored, and nobody says so.

    Reported: gradient checkpointing, huggingface/transformers#21737.
    """

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        if torch.is_grad_enabled():
            self.keys[layer] = self.keys[layer][:, :, :0]
            self.values[layer] = self.values[layer][:, :, :0]
        return found


@torch.no_grad()
def at_one_address(model, right):
    """Tokens come one by one, each in a tensor of its own that is gone before the next is made."""
    for seed in range(20):
        text = words(1, 6, seed)
        _, cache = model(text[:, :3].clone(), use_cache=True)
        for place in range(3, 6):
            new = text[:, place : place + 1].clone()
            logits, cache = model(new, past_kv=cache, use_cache=True)
            del new
            if differs(logits, right(text)[0][:, place : place + 1]):
                return True
    return False


@reported("embeddings_found_by_address", at_one_address, script(5))
class EmbeddingsFoundByAddress(DecoderOnlyTransformer):
    """Embeddings of new tokens are kept by their position and by where the tokens are in memory.

    Reported: kept by data_ptr(), reviews of ModelTC/LightX2V#1132 and sgl-project/sglang#29755.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.known = {}

    def embed(self, input_ids, start=0):
        if not start:
            return super().embed(input_ids)
        place = input_ids.data_ptr(), input_ids.shape, start, self.dtype
        if place not in self.known:
            self.known[place] = super().embed(input_ids, start)
        return self.known[place]
