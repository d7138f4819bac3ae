"""Models as a user has them who copied a modeling file of `transformers`, with one wrong line.

The text of the installed file is read, one place of it is replaced, and it is run as a module. The
files themselves are not in the project.
"""

import importlib
import inspect
import itertools
import linecache
import sys
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from course_utils.going_further import wild

NUMBERS = itertools.count()


@dataclass(frozen=True)
class Plant:
    """A wrong line: in the file of which type, what is replaced by what, what is written below.

    `named` is the beginning of what the course calls it, "" for a mistake without a name. `cache`
    is the kind in which it shows.
    """

    type: str
    old: str
    new: str
    below: str = ""
    named: str = ""
    cache: str = "own"

    def model(self, seed: int = 0) -> nn.Module:
        """A small model of that type, whose classes are those of the changed file."""
        return remade(wild.small_model(self.type, seed=seed), self.module())

    def module(self) -> ModuleType:
        """The changed file as a module. Raises ValueError if it has not exactly one such place."""
        origin = f"transformers.models.{self.type}.modeling_{self.type}"
        source = inspect.getsource(importlib.import_module(origin))
        if source.count(self.old) != 1:
            raise ValueError(f"{origin} has {source.count(self.old)} places {self.old!r}, not 1.")
        return loaded(origin, source.replace(self.old, self.new) + "\n\n" + self.below)


def loaded(origin: str, source: str) -> ModuleType:
    """A source text as a module of no package, whose relative imports are those of `origin`."""
    module = ModuleType(f"copied_{origin.rpartition('.')[2]}_{next(NUMBERS)}")
    module.__package__ = origin.rpartition(".")[0]
    module.__file__ = f"/where/a/user/has/it/{module.__name__}.py"
    sys.modules[module.__name__] = module
    lines = source.splitlines(keepends=True)
    linecache.cache[module.__file__] = (len(source), None, lines, module.__file__)
    exec(compile(source, module.__file__, "exec"), vars(module))
    return module


def remade(model: nn.Module, module: ModuleType) -> nn.Module:
    """The same model, of the classes that a module defines under the same names."""
    found = getattr(module, type(model).__name__)(model.config)
    found.load_state_dict(model.state_dict())
    return found.eval()


NEW = "past_key_values = DynamicCache(config=self.config)"
PAST = "past_seen_tokens = past_key_values.get_seq_length() if past_key_values is not None else 0"
HERE = "inputs_embeds.device) + past_seen_tokens"
KEPT = "past_key_values.update(key_states, value_states, self.layer_idx)"
UNTURNED = "self.k_proj(hidden_states).view(hidden_shape).transpose(1, 2)"
UPDATE = f"key_states, value_states = {KEPT}"
ROTATED = "query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)"
MASK_FUNCTION = "mask_function(\n            config=self.config,"
MASKED = "        hidden_states = inputs_embeds\n"
MASK = """            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
"""
CONV = """hidden_states = past_key_values.update_conv_state(
                    hidden_states, self.layer_idx, conv_kernel_size=self.conv_kernel_size
                )"""
STORED = "cache_params.update_recurrent_state(final_state, layer_idx=self.layer_idx)"
LATER = "past_key_values is not None and past_key_values.get_seq_length()"


def own_layers(methods: str, base: str = "DynamicLayer", arguments: str = "") -> str:
    """Source of a cache `own_cache(config)` whose layers have these methods instead."""
    body = "\n".join(f"    {line}" for line in methods.strip().splitlines())
    return f"""
from transformers.cache_utils import Cache, {base}

class Own({base}):
{body}

def own_cache(config):
    return Cache(layers=[Own({arguments}) for _ in range(config.num_hidden_layers)])
"""


OWN = "past_key_values = own_cache(self.config)"
SHORTER = """
import copy

def another_window(config, more, past_key_values=True):
    config = copy.deepcopy(config)
    if past_key_values is not None and past_key_values is not False:
        config.sliding_window += more
    return config
"""
LONGER = """
def DynamicCache(config, right=DynamicCache):
    return right(config=another_window(config, 1))
"""
CROP = """
def crop(self, tokens_to_remove):
    super().crop({})
"""
REORDER = """
def reorder_cache(self, beam_idx):
    self.keys = self.keys[beam_idx]

def batch_select_indices(self, indices):
    self.keys, self.values = self.keys[indices], self.values[[0] * len(indices)]
"""
STILL = """
def reorder_cache(self, beam_idx):
    pass
"""
WRITES = """
def update(self, key_states, value_states, *rest, **more):
    if not self.is_initialized:
        self.lazy_initialization(key_states, value_states)
    {}
    self.cumulative_length.add_(key_states.shape[-2])
    self.keys[:, :, places], self.values[:, :, places] = key_states, value_states
    return self.keys, self.values
"""
PLACES = "places = {} + self.cumulative_length"
HANDED = "mask_function(\n            config=another_window(self.config, {}, past_key_values),"


def window(more: int) -> str:
    return f"past_key_values = DynamicCache(config=another_window(self.config, {more}))"


PLANTS = {
    "positions from 0": Plant("llama", PAST, "past_seen_tokens = 0", named="positions_from_zero"),
    "positions from 0, learned": Plant(
        "gpt2", PAST, "past_seen_tokens = 0", named="positions_from_zero"
    ),
    "positions from 0, even if it is told": Plant(
        "mistral",
        "        if position_ids is None:\n            " + PAST,
        "        if True:\n            past_seen_tokens = 0",
        named="positions_from_zero",
    ),
    "positions one too low": Plant(
        "llama", HERE, "inputs_embeds.device) + max(past_seen_tokens - 1, 0)"
    ),
    "positions one too high": Plant(
        "llama", HERE, "inputs_embeds.device) + past_seen_tokens + bool(past_seen_tokens)"
    ),
    "keys turned after they are kept, as if they were the newest": Plant(
        "llama",
        ROTATED + "\n\n        if past_key_values is not None:\n            " + UPDATE,
        "raw = key_states\n"
        f"        {ROTATED}\n"
        "        if past_key_values is not None:\n"
        f"            raw, value_states = {KEPT.replace('key_states', 'raw')}\n"
        "            turn = cos[:, -1:], sin[:, -1:]\n"
        "            old = apply_rotary_pos_emb(raw, raw, *turn)[1][:, :, : -key_states.size(2)]\n"
        "            key_states = torch.cat([old, key_states], dim=2)",
    ),
    "mask ignored after the first call": Plant(
        "llama",
        MASK,
        MASK.replace("=attention_mask", f"=None if {LATER} else attention_mask"),
        named="padding_ignored",
    ),
    "no causal mask in chunks": Plant(
        "llama",
        MASKED,
        f"        if {LATER}:\n"
        "            new, old = inputs_embeds.size(1), past_key_values.get_seq_length()\n"
        f"            causal_mask = inputs_embeds.new_zeros(1, 1, new, old + new)\n{MASKED}",
    ),
    "scaled differently with a cache": Plant(
        "llama",
        "scaling=self.scaling,",
        "scaling=self.scaling * (1 if past_key_values is None else 1.01),",
    ),
    "heads repeated in another order": Plant(
        "llama", UPDATE, UPDATE + "\n            value_states = value_states.flip(1)"
    ),
    "the newest key not turned": Plant(
        "llama",
        UPDATE,
        UPDATE.replace(
            "(key_states,", "(self.k_proj(hidden_states).view(hidden_shape).transpose(1, 2),"
        ),
    ),
    "values of the layer before": Plant(
        "llama", UPDATE, UPDATE + "\n            value_states = past_key_values.layers[0].values"
    ),
    "the cache of the generation before": Plant(
        "llama",
        NEW,
        "past_key_values = self.__dict__.setdefault('kept', DynamicCache(config=self.config))",
    ),
    "rollback keeps one": Plant(
        "llama", NEW, OWN, own_layers(CROP.format("min(tokens_to_remove + 1, 0)")), "crop_keeps"
    ),
    "rollback keeps everything": Plant(
        "llama", NEW, OWN, own_layers(CROP.format("0")), "crop_keeps"
    ),
    "rollback keeps one in the last layer": Plant(
        "llama",
        NEW,
        OWN,
        own_layers(CROP.format("min(tokens_to_remove + 1, 0)"))
        + "\nown_cache = lambda config, right=own_cache: mixed(right(config))\n\n"
        "def mixed(cache):\n"
        "    cache.layers[:-1] = [DynamicLayer() for _ in cache.layers[:-1]]\n"
        "    return cache\n",
        "crop_keeps",
    ),
    "rollback forgets one more": Plant(
        "llama", NEW, OWN, own_layers(CROP.format("tokens_to_remove - bool(tokens_to_remove)"))
    ),
    "values stay where they are": Plant(
        "llama", NEW, OWN, own_layers(REORDER), "reorder_leaves_values"
    ),
    "rows stay where they are": Plant("llama", NEW, OWN, own_layers(STILL), "reorder_ignored"),
    "full layers given a window": Plant(
        "llama", NEW, OWN, own_layers("pass", "DynamicSlidingWindowLayer", "8")
    ),
    "static: a chunk written backwards": Plant(
        "llama",
        NEW,
        OWN,
        own_layers(
            WRITES.format(PLACES.format("torch.arange(key_states.shape[-2]).flip(0)")),
            "StaticLayer",
            "72",
        ),
    ),
    "static: written one place too far": Plant(
        "llama",
        NEW,
        OWN,
        own_layers(
            WRITES.format(
                PLACES.format("torch.arange(key_states.shape[-2])") + "\n"
                "    places = places + (self.cumulative_length > 0)"
            ),
            "StaticLayer",
            "74",
        ),
    ),
    "window of the cache one short": Plant("mistral", NEW, window(-1), SHORTER, "window_one_short"),
    "window of the mask one short": Plant(
        "mistral", MASK_FUNCTION, HANDED.format(-1), SHORTER, "window_mask_one_short"
    ),
    "window of the mask one long": Plant(
        "mistral", MASK_FUNCTION, HANDED.format(1), SHORTER, "window_mask_one_long"
    ),
    "window of the mask and of a growing cache one long": Plant(
        "mistral", MASK_FUNCTION, HANDED.format(1), SHORTER, "window_mask_one_long", "growing"
    ),
    "window of the mask and of the cache one long": Plant(
        "mistral", MASK_FUNCTION, HANDED.format(1), SHORTER + LONGER, "window_one_long"
    ),
    "sliding layers given a full cache and no window": Plant(
        "mistral",
        "create_causal_mask if self.config.sliding_window is None else",
        f"create_causal_mask if {LATER} else",
        cache="growing",
    ),
    "masks of the kinds of layer swapped": Plant(
        "gemma2",
        "attention_mask=causal_mask_mapping[self.config.layer_types[i]]",
        "attention_mask=causal_mask_mapping["
        f"'sliding_attention' if {LATER} else self.config.layer_types[i]]",
        cache="growing",
    ),
    "state not handed on": Plant("mamba2", STORED, "pass"),
    "state of the convolution not handed on": Plant(
        "lfm2", CONV, CONV.removeprefix("hidden_states = ")
    ),
}
