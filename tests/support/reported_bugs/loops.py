"""Wrong in `generate` alone, and for some requests only: a temperature, a length, equal rows."""

import torch

from .entry import reported
from .parts import Loop
from .uses import again, generated, other_text


def drawn(*prompts):
    def wrong(model, right):
        return other_text(model, right, torch.tensor(prompts), 8, 1)

    return wrong


@reported("temperature_twice", generated(4, 12, temperature=0.6), generated(4, 12, temperature=1))
class TemperatureTwice(Loop):
    """With the cache, the logits are divided by the temperature twice.

    Reported: RL-Align/RL-Kernel#81.
    """

    def loop(self, ids, steps, temperature, generator=None):
        return super().loop(ids, steps, temperature**2, generator)


@reported("temperature_left_out", generated(4, 12, temperature=3), generated(4, 12, temperature=1))
class TemperatureLeftOut(Loop):
    """With the cache, a temperature above 1 is taken for 1.

    Reported: parameters that do not get through, sokrypton/ColabDesign#182.
    """

    def loop(self, ids, steps, temperature, generator=None):
        return super().loop(ids, steps, min(temperature, 1), generator)


@reported("prompt_in_chunks_of_eight", generated(16, 4), generated(15, 4))
class PromptInChunksOfEight(Loop):
    """The prompt goes in by eights, and of whole eights the last one is left out.

    Reported: chunked prefill, Integral2u/SharpMind#57, vllm-project/vllm#7753.
    """

    size = 8

    @torch.no_grad()
    def begin(self, ids, steps):
        cache, done = None, 0
        while ids.size(1) - done > self.size:
            whole = ids.size(1) % self.size == 0 and done == ids.size(1) - 2 * self.size
            chunk = ids[:, done : done + self.size - whole]
            cache = self(chunk, past_kv=cache, use_cache=True)[1]
            done += self.size
        return ids[:, done:], cache


@reported("prompt_in_chunks_of_64", generated(128, 4), generated(127, 4), room=320)
class PromptInChunksOf64(PromptInChunksOfEight):
    """The prompt goes in by 64s, and of whole 64s one token is left out.

    Reported: chunked prefill, pytorch/executorch#20346.
    """

    size = 64


@reported(
    "draws_in_blocks_of_eight", generated(4, 16, temperature=1), generated(4, 8, temperature=1)
)
class DrawsInBlocksOfEight(Loop):
    """After eight draws, the token that goes back in is the one of eight draws ago.

    Reported: student repositories (no address).
    """

    def next_input(self, token, logits, cache, ids, prompt):
        if token.ne(logits[:, -1].argmax(-1)[:, None]).any() and ids.size(1) - prompt.size(1) > 8:
            return ids[:, -9:-8], cache
        return token, cache


@reported(
    "equal_prompts_are_drawn_once",
    drawn([3, 4, 5], [3, 4, 5]),
    drawn([3, 4, 5], [4, 4, 5]),
)
class EqualPromptsAreDrawnOnce(Loop):
    """Rows with the same prompt are generated once, and copied: all samples are the same.

    Reported: several samples of one prompt, vllm-project/vllm#38900.
    """

    def loop(self, ids, steps, temperature, generator=None):
        rows, place = ids.unique(dim=0, return_inverse=True)
        if len(rows) == len(ids):
            return super().loop(ids, steps, temperature, generator)
        return super().loop(rows, steps, temperature, generator)[place]


@reported(
    "rest_of_a_long_prompt_is_filled_up",
    generated(17, 4),
    again(generated(16, 4), generated(32, 4)),
    room=64,
)
class RestOfALongPromptIsFilledUp(Loop):
    """What is left of a prompt after whole 16s is filled up to 16 with zeros in front of it.

    Reported: prompts in buckets, huggingface/optimum-neuron#264 (another fault there).
    """

    def begin(self, ids, steps):
        missing = -ids.size(1) % 16
        if ids.size(1) < 16 or ids.size(1) + missing + steps > self.max_seq_len:
            return ids, None
        first, rest = ids[:, : 16 - missing], ids[:, 16 - missing :]
        zeros = torch.zeros_like(ids[:, :1]).expand(-1, missing)
        return torch.cat([first, zeros, rest], dim=1), None


@reported("greedy_keeps_its_guess", generated(4, 12), generated(4, 12, temperature=1))
class GreedyKeepsItsGuess(Loop):
    """At temperature 0 the same token is guessed to come again, and the guess is never taken back.

    Reported: drafts in a cache, romsto/Speculative-Decoding#4 (says only that it is wrong).
    """

    def loop(self, ids, steps, temperature, generator=None):
        self.guesses = temperature == 0
        return super().loop(ids, steps, temperature, generator)

    def next_input(self, token, logits, cache, ids, prompt):
        if self.guesses and cache.length + 8 < self.max_seq_len:
            _, cache = self(token, past_kv=cache, use_cache=True)
        return token, cache
