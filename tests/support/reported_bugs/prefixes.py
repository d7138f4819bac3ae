"""Wrong when texts share a beginning: blocks of earlier texts are kept in the model and used."""

import copy

import torch

from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .uses import again, differs, script, words

FIRST, SECOND, THIRD = [1, 2, 3, 4], [5, 6, 7, 8], [11, 12, 13, 14]


class PrefixStore(DecoderOnlyTransformer):
    """Keeps keys, values and logits of every full block of 4 at the beginning of a text.

    Right: a block is found by all tokens up to its end, and by what it was computed in.
    """

    size = 4

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.blocks = {}

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache or past_kv is not None:
            return super().forward(input_ids, past_kv, use_cache)
        self.check_input(input_ids, past_kv, use_cache)
        cache = self.new_cache(input_ids.size(0))
        found = self.load(input_ids, cache)
        rest, _ = super().forward(input_ids[:, cache.length :], cache, True)
        logits = torch.cat([*found, rest], dim=1)
        self.save(input_ids, cache, logits.detach())
        return logits, cache

    def load(self, ids, cache):
        """Fill the cache with the blocks that are known; return their logits."""
        found = []
        for end in range(self.size, ids.size(1), self.size):
            blocks = [self.find(row, end) for row in ids]
            if any(block is None for block in blocks):
                break
            keys, values, logits = (torch.stack(part) for part in zip(*blocks, strict=True))
            for layer in range(self.num_layers):
                cache.append(layer, keys[:, layer], values[:, layer])
            found.append(logits)
        return found

    def save(self, ids, cache, logits):
        for i, row in enumerate(ids):
            for end in range(self.size, len(row) + 1, self.size):
                here = slice(end - self.size, end)
                block = cache.keys[:, i, :, here], cache.values[:, i, :, here], logits[i, here]
                self.put(self.key(row, end), tuple(part.detach().clone() for part in block))

    def find(self, row, end):
        return self.blocks.get(self.key(row, end))

    def put(self, key, block):
        self.blocks.setdefault(key, block)

    def key(self, row, end):
        return *self.computed_in(), self.tokens(row[:end].tolist())

    def computed_in(self):
        weights = sum(weight.detach().double().sum().item() for weight in self.parameters())
        return self.dtype, self.device, weights

    def tokens(self, prefix):
        """What of the tokens up to a block's end a block is found by."""
        return tuple(prefix)


@reported(
    "block_found_without_prefix",
    again(script(FIRST + SECOND + [9]), script(THIRD + THIRD + [9]), script(FIRST + THIRD + [9])),
    again(script(FIRST + SECOND + [9]), script(FIRST + SECOND + [9])),
)
class BlockFoundWithoutPrefix(PrefixStore):
    """A block is found by its own tokens and its number; what came before it is left out.

    Reported: keys of a shared cache, vllm-project/aibrix#2329.
    """

    def tokens(self, prefix):
        return len(prefix), tuple(prefix[-self.size :])


@reported("block_found_without_last_token", again(script(FIRST + [9]), script([1, 2, 3, 40, 9])))
class BlockFoundWithoutLastToken(PrefixStore):
    """The hash of a block leaves out its last token.

    Reported: a fault that an engine's tests let through, kekzl/imp#1301.
    """

    def tokens(self, prefix):
        return tuple(token for i, token in enumerate(prefix) if (i + 1) % self.size)


@reported("block_found_by_colliding_hash", again(script(FIRST + [9]), script([4, 3, 2, 1, 9])))
class BlockFoundByCollidingHash(PrefixStore):
    """Blocks of the same hash are taken for the same; the tokens are not compared.

    Reported: a library for CPUs, openvinotoolkit/openvino.genai#3722.
    """

    def tokens(self, prefix):
        return len(prefix), sum(prefix) % 64


@reported("partial_match_is_a_match", again(script(FIRST + [9]), script([1, 22, 23, 24, 9])))
class PartialMatchIsAMatch(PrefixStore):
    """A block whose first token agrees is used as a whole.

    Reported: a tree of prefixes, mratsim/tattletale#93.
    """

    def tokens(self, prefix):
        return tuple(prefix[: 1 - self.size])


@reported(
    "prefix_of_the_first_row",
    again(script([FIRST + [9]] * 2, rows=2), script([FIRST + [9], THIRD + [9]], rows=2)),
    again(script(FIRST + [9]), script(THIRD + [9])),
)
class PrefixOfTheFirstRow(PrefixStore):
    """What is known of the first row's text is used for all rows.

    Reported: a prefill that reads the wrong rows, tanishqkumar/ssd#23.
    """

    def load(self, ids, cache):
        return super().load(ids[:1].expand_as(ids), cache)


@reported(
    "evicted_block_keeps_its_key",
    again(script(FIRST + SECOND + [9]), script(THIRD + SECOND + [9]), script(FIRST + [9])),
    again(script(FIRST + SECOND + [9]), script(FIRST + SECOND + [9])),
)
class EvictedBlockKeepsItsKey(PrefixStore):
    """There is room for three blocks; one that makes room for another is still found.

    Reported: blocks that keep their hash, ovg-project/kvcached#362.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pool = []

    def put(self, key, block):
        if key not in self.blocks:
            slot = self.blocks[key] = len(self.blocks) % 3
            self.pool[slot : slot + 1] = [block]

    def find(self, row, end):
        slot = super().find(row, end)
        return None if slot is None else self.pool[slot]


@reported(
    "whole_prompt_known",
    again(script(FIRST + SECOND), script(FIRST + SECOND)),
    again(script(FIRST + SECOND + [9]), script(FIRST + SECOND + [9])),
)
class WholePromptKnown(PrefixStore):
    """If all of a prompt is known, its last token goes in once more on top of itself.

    Reported: what vllm-project/vllm#11186 and vectorch-ai/ScaleLLM#96 guard against.
    """

    def forward(self, input_ids, past_kv=None, use_cache=False):
        full = use_cache and past_kv is None and input_ids.size(1) % self.size == 0
        if not full or any(self.find(row, input_ids.size(1)) is None for row in input_ids):
            return super().forward(input_ids, past_kv, use_cache)
        cache, last = self.new_cache(input_ids.size(0)), input_ids[:, -1:]
        found = torch.cat(self.load(torch.cat([input_ids, last], dim=1), cache), dim=1)
        logits, _ = super().forward(last, cache, True)
        return torch.cat([found[:, :-1], logits], dim=1), cache


@reported(
    "known_prompt_grows",
    again(script(FIRST, 2), script(FIRST, 2)),
    script(FIRST, 2),
)
class KnownPromptGrows(DecoderOnlyTransformer):
    """The stored cache of a known prompt is handed out itself, and every generation adds to it.

    Reported: a memory of prompts, MemTensor/MemOS#2301.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.prompts = {}

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache or past_kv is not None:
            return super().forward(input_ids, past_kv, use_cache)
        key = self.dtype, self.device, str(input_ids.tolist())
        if key not in self.prompts:
            self.prompts[key] = super().forward(input_ids, None, True)
        return self.prompts[key]


def before_and_after_a_cast(model, right):
    """The same text in float32 and then, with the same weights, in float64."""
    model, right = (copy.deepcopy(m).float() for m in (model, right))
    script(FIRST + [9])(model, right)
    return script(FIRST + [9])(model.double(), right.double())


@reported("prefix_survives_a_cast", before_and_after_a_cast)
class PrefixSurvivesACast(PrefixStore):
    """What was computed before the weights changed is used after it.

    Reported: new weights for a running server, InternLM/lmdeploy#4917, vllm-project/vllm#9744.
    """

    def key(self, row, end):
        return self.tokens(row[:end].tolist())


LONG = list(range(1, 17))


@reported(
    "block_found_by_its_first_half",
    again(script(LONG + [9]), script(LONG[:8] + LONG[:8] + [9])),
    again(script(LONG + [9]), script(LONG + [9, 8])),
)
class BlockFoundByItsFirstHalf(PrefixStore):
    """A block of 16 is found by the prefix before it and by its own first 8 tokens.

    Reported: hashes of a finer grain than the blocks, ovg-project/kvcached#446 and #451.
    """

    size = 16

    def tokens(self, prefix):
        return tuple(prefix[:-8])


def third_beside_two_equal(model, right):
    return together_from(model, right, (0, 0, 1))


@torch.no_grad()
def together_from(model, right, seeds):
    """Prompts of 6 tokens of these seeds are begun; then all go on, the second one first."""
    texts = [words(1, 8, seed) for seed in seeds]
    caches = [model(text[:, :6], use_cache=True)[1] for text in texts]
    for i in (1, 2, 0):
        logits, _ = model(texts[i][:, 6:], past_kv=caches[i], use_cache=True)
        if differs(logits, right(texts[i])[0][:, 6:]):
            return True
    return False


@reported(
    "equal_prompt_gives_its_buffer_back",
    third_beside_two_equal,
    lambda model, right: together_from(model, right, (0, 1, 2)),
)
class EqualPromptGivesItsBufferBack(DecoderOnlyTransformer):
    """What holds a prompt that another text has, too, is free for the next; but it is still used.

    Reported: duplicate pages in a tree of prefixes, sgl-project/mini-sglang#142.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.prompts, self.free = set(), []

    def new_cache(self, batch_size):
        cache = super().new_cache(batch_size)
        for place, (keys, values) in enumerate(self.free):
            if keys.shape == cache.keys.shape and keys.dtype == cache.keys.dtype:
                cache.keys, cache.values = keys, values
                del self.free[place]
                break
        return cache

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, cache = super().forward(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            prompt = str(input_ids.tolist()), self.dtype
            if prompt in self.prompts:
                self.free.append((cache.keys, cache.values))
            self.prompts.add(prompt)
        return logits, cache
