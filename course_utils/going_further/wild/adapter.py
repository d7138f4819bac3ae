"""A causal model of `transformers` with the course's interface (chapter 13).

Shapes: B batch, Q new tokens, T columns so far, V words.
"""

import contextlib
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...evaluation import copied
from .caches import Kept, name_of, new_past

ROOM = 72
KEPT_AS = (
    "past_key_values",
    "cache_params",
    "state",
    "mems",
    "past_buckets_states",
    "cache",
)


class NoCache(ValueError):
    """A type that keeps nothing: there is no cache to judge."""


@dataclass(frozen=True)
class Use:
    """How a model is used.

    `cache` is one of `KINDS`. If it is `told`, each call says which positions its tokens have and
    that all columns mean something, as `generate` of the library does. If `singly`, what is
    appended goes in one token at a time.
    """

    cache: str = "own"
    told: bool = False
    singly: bool = False


class Rows:
    """As many rows as a table would have that the adapted model need not have."""

    def __init__(self, number: int):
        self.weight = torch.empty(number, 0)


class Adapted(nn.Module):
    """A model of the library, called as the course calls its own.

    Ids are those of `words`, the vocabulary without the ids that mean something to the model itself
    (padding, the place of an image): id i is the i-th that is none of them. `room` positions are
    offered; a token more is refused here, as most models of the library have no end of their own.
    """

    def __init__(self, model: nn.Module, use: Use | None = None, room: int | None = None):
        super().__init__()
        self.model, self.use = copied(model, share_parameters=True), use or Use()
        self.takes = parameters_of(type(model))
        if "kwargs" in self.takes and not self.takes & set(KEPT_AS):
            self.takes |= parameters_of(type(getattr(model, "base_model", model)))
        self.kept_as = next((name for name in KEPT_AS if name in self.takes), None)
        if self.kept_as is None:
            raise NoCache(
                f"{type(model).__name__} has no cache: its forward takes none. There is nothing "
                f"to judge; expected one that takes {KEPT_AS[0]}, or {', '.join(KEPT_AS[1:])}."
            )
        room = min(room or ROOM, positions_of(model) or ROOM)
        self.words = words_of(model)
        self.token_embedding, self.pos_embedding = Rows(len(self.words)), Rows(room)
        self.pads = self.exact = True
        without_an_end(self.model)
        in_any_dtype(self.model)

    def double(self) -> nn.Module:
        """In float64, or in float32 if the model is not `exact`."""
        return super().double() if self.exact else self.float()

    @property
    def room(self) -> int:
        return self.pos_embedding.weight.size(0)

    def forward(
        self, input_ids: Tensor, past_kv: Kept | None = None, use_cache: bool = False
    ) -> tuple[Tensor, Kept | None]:
        """Logits (B, Q, V) of the new tokens (B, Q), and what goes into the next call."""
        if not use_cache:
            self.refuse_more_than_room(input_ids.size(1))
            return self.logits(self.called(input_ids, use_cache=False)), None
        kept = past_kv or self.new()
        self.refuse_more_than_room(kept.length + input_ids.size(1))
        if not (self.use.singly and kept.length):
            return self.fed(kept, input_ids), kept
        return torch.cat([self.fed(kept, one) for one in input_ids.split(1, dim=1)], dim=1), kept

    def refuse_more_than_room(self, length: int) -> None:
        if length > self.room:
            raise ValueError(f"{length} tokens where there is room for {self.room}")

    def new(self, seen: Tensor | None = None) -> Kept:
        past = new_past(self.use.cache, self.model.config, self.room)
        return Kept(self.model, past, seen)

    def fed(self, kept: Kept, input_ids: Tensor) -> Tensor:
        """Logits of tokens that go into a cache, which then holds them."""
        more = self.told(kept, input_ids)
        if kept.past is not None:
            more[self.kept_as] = kept.past
        out = self.called(input_ids, use_cache=True, **more)
        past = out.get(self.kept_as) if hasattr(out, "get") else None
        kept.past, kept.rows = kept.past if past is None else past, len(input_ids)
        if kept.past is None:
            raise NoCache(
                f"{type(self.model).__name__} returns no {self.kept_as}: it has no cache, or only "
                "one that it is given (--cache dynamic)."
            )
        kept.length += input_ids.size(1)
        return self.logits(out)

    def told(self, kept: Kept, input_ids: Tensor) -> dict[str, Tensor]:
        """The positions of new tokens and which columns count, where they are said."""
        rows, new = input_ids.shape
        if kept.seen is None and not self.use.told:
            return {}
        if kept.seen is None:
            mask = input_ids.new_ones(rows, kept.length + new)
        else:
            extra = kept.length + new - kept.seen.size(1)
            more = kept.seen.new_ones(rows, max(extra, 0))
            mask = kept.seen = torch.cat([kept.seen, more], dim=1)
        said = told(self.takes, mask, new)
        if "attention_mask" in said and self.use.cache == "static":
            said["attention_mask"] = self.mask_for(kept, mask, said.get("position_ids"))
        return said

    def mask_for(self, kept: Kept, mask: Tensor, position_ids: Tensor | None) -> Any:
        """As `generate` makes it for a static cache, where a type has a way of its own."""
        made = getattr(self.model, "create_masks_for_generate", None)
        if made is None or not kept.past.is_compileable:
            return mask
        like = next(self.model.parameters()).new_empty(len(mask), mask.size(1) - kept.length, 0)
        more = {"past_key_values": kept.past, "position_ids": position_ids}
        return made(config=self.model.config, inputs_embeds=like, attention_mask=mask, **more)

    def called(self, input_ids: Tensor, **how: Any) -> Any:
        given = {name: value for name, value in how.items() if self.accepts(name)}
        return self.model(input_ids=self.words.to(input_ids.device)[input_ids], **given)

    def accepts(self, name: str) -> bool:
        return name in self.takes or (name == "use_cache" and "kwargs" in self.takes)

    def logits(self, out: Any) -> Tensor:
        found = out.logits if hasattr(out, "logits") else out[0]
        return found[..., self.words.to(found.device)]

    def padded_cache(self, padding: Tensor) -> Kept:
        """An empty cache for rows whose first `padding[i]` columns mean nothing; `padding` (B,)."""
        if not self.pads:
            raise NotImplementedError("the model does not know padding without a cache, either")
        columns = torch.arange(int(padding.max()), device=padding.device)
        return self.new((columns >= padding[:, None]).long())

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        use_cache: bool = True,
    ) -> Tensor:
        """The library's own `generate`: the likeliest tokens if it is cold, drawn ones if not."""
        if not hasattr(self.model, "generate") or not self.model.can_generate():
            raise NotImplementedError("the model has no generate")
        if type(self.model).generate.__module__.startswith("transformers.models."):
            raise NotImplementedError("its type has a generate of its own, not for words alone")
        if self.use.cache not in ("own", "dynamic", "static") or self.use.singly:
            raise NotImplementedError("generate makes its own cache")
        if max_new_tokens == 0:
            return input_ids
        ids = self.words.to(input_ids.device)[input_ids]
        how = {"do_sample": temperature > 1e-3, "use_cache": use_cache}
        if how["do_sample"]:
            how |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
        if use_cache and self.use.cache == "static":
            how["cache_implementation"] = "static"
        found = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            disable_compile=True,
            **how,
        )
        return self.back(found)

    def back(self, ids: Tensor) -> Tensor:
        """Ids of words from ids of the library."""
        places = torch.full((int(self.words.max()) + 1,), -1, device=ids.device)
        places[self.words.to(ids.device)] = torch.arange(len(self.words), device=ids.device)
        return places[ids]


def parameters_of(kind: type) -> set[str]:
    """What `forward` of a class takes by name; with a `**more`, also what its parents' do."""
    found: set[str] = set()
    for parent in kind.__mro__:
        if "forward" in vars(parent):
            parameters = inspect.signature(parent.forward).parameters
            found |= set(parameters)
            if all(some.kind is not some.VAR_KEYWORD for some in parameters.values()):
                break
    return found


def told(takes: set[str], mask: Tensor, new: int) -> dict[str, Tensor]:
    """The arguments that say which columns (B, T) count and where the `new` last ones are."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new:]
    said = {"attention_mask": mask, "position_ids": positions}
    return {name: value for name, value in said.items() if name in takes}


def words_of(model: nn.Module) -> Tensor:
    """The ids that mean a word: all but those that the configuration gives another meaning."""
    config = model.config.get_text_config(decoder=True)
    rows = model.get_input_embeddings()
    number = getattr(config, "vocab_size", None) or rows.num_embeddings
    special = set()
    for part in (model.config, config):
        for name, value in vars(part).items():
            if name.endswith(("_token_id", "_token_index", "_token_ids")):
                special |= set(value if isinstance(value, list) else [value])
    return torch.tensor([word for word in range(number) if word not in special])


def positions_of(model: nn.Module) -> int | None:
    """How many positions the model has by its configuration; None if it does not say."""
    config = model.config.get_text_config(decoder=True)
    names = ("max_position_embeddings", "n_positions", "max_target_positions")
    found = [getattr(config, name, None) for name in names]
    return min((number for number in found if isinstance(number, int) and number > 0), default=None)


def without_an_end(model: nn.Module) -> None:
    """Let `generate` go on to the number of tokens that it is asked for, and change no logits.

    What a type asks for beyond that (no three words that were in the prompt, for instance) is not
    about its cache.
    """
    own = getattr(model, "generation_config", None)
    if own is None:
        return
    start = getattr(own, "decoder_start_token_id", None) or own.bos_token_id or 0
    config = model.generation_config = type(own)(bos_token_id=start)
    config.decoder_start_token_id = start
    words = set(words_of(model).tolist())
    every = range(model.get_output_embeddings().weight.size(0)) if has_output(model) else ()
    config.eos_token_id = config.forced_eos_token_id = config.forced_bos_token_id = None
    config.pad_token_id = 0
    config.suppress_tokens = [word for word in every if word not in words] or None


def in_any_dtype(model: nn.Module) -> None:
    """Let a mixture of experts use the implementation that runs in float64, too."""
    with contextlib.suppress(Exception):
        model.set_experts_implementation("eager")


def has_output(model: nn.Module) -> bool:
    found = getattr(model, "get_output_embeddings", lambda: None)()
    return hasattr(found, "weight")


@torch.no_grad()
def first_past(model: Adapted) -> Any:
    """What is kept of a token. Raises NoCache if nothing is, and what the model raises."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    return model(ids, use_cache=True)[1].past


def first_cache(model: Adapted) -> str:
    """The class of what is kept of a token. Raises NoCache if nothing is.

    Raises what the library raises if the model can't have such a cache; a first call that fails is
    a matter for the judgement.
    """
    model.new()
    try:
        return name_of(first_past(model))
    except NoCache:
        raise
    except Exception as error:
        return f"unknown, as its first call raises {type(error).__name__}"
