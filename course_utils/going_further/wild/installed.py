"""The library `transformers`, which the course does without unless a model of it is judged.

It is imported when it is first needed: it takes seconds, and the course is installed without it.
"""

import difflib
import importlib
from pathlib import Path
from types import ModuleType

from torch import nn

INSTALL = 'python -m pip install -e ".[test]", or python -m pip install transformers'


def library() -> ModuleType:
    """The package `transformers`. Raises ValueError, saying how to install it, if it is missing."""
    try:
        found = importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError(
            f"a model of transformers is judged only where transformers is installed ({error}): "
            f"{INSTALL}"
        ) from None
    found.logging.set_verbosity_error()
    found.logging.disable_progress_bar()
    return found


def module(name: str) -> ModuleType:
    """A module of it: `module("cache_utils")`."""
    library()
    return importlib.import_module(f"transformers.{name}")


def is_of_the_library(model: object) -> bool:
    """Is it a model of `transformers`? Asked without importing that."""
    return any(
        kind.__name__ == "PreTrainedModel" and kind.__module__.startswith("transformers.")
        for kind in type(model).__mro__
    )


def causal_types() -> dict[str, str]:
    """Every model type that has a causal language model, with the name of its class.

    First those of MODEL_FOR_CAUSAL_LM_MAPPING; then the types of images and text whose text alone
    can be fed.
    """
    auto = module("models.auto.modeling_auto")
    found = dict(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for name, kind in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items():
        found.setdefault(name, kind)
    return {name: kind if isinstance(kind, str) else kind[0] for name, kind in found.items()}


def class_of(name: str) -> type[nn.Module]:
    """The class of a model type. Raises ValueError with similar names if there is none."""
    known = causal_types()
    if name in known:
        return getattr(library(), known[name])
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f" Similar ones: {', '.join(close)}." if close else ""
    if name in module("models.auto.configuration_auto").CONFIG_MAPPING_NAMES:
        raise ValueError(f"--transformers {name}: this type has no causal language model.{hint}")
    where = "" if Path(name).exists() else ", and no folder is there"
    raise ValueError(
        f"--transformers {name}: transformers {library().__version__} has no model type of this "
        f"name{where}.{hint}"
    )


def from_folder(folder: Path) -> nn.Module:
    """The model of a checkpoint on disk, with its weights, in its dtype; nothing is downloaded.

    Raises ValueError if the folder holds no config.json, or one that needs code of its own.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"--transformers {folder}: the folder holds no config.json; expected what "
            "`save_pretrained` writes: config.json and the weights."
        )
    found = library()
    how = {"local_files_only": True, "trust_remote_code": False}
    config = found.AutoConfig.from_pretrained(folder, **how)
    if config.model_type not in causal_types():
        raise ValueError(
            f"--transformers {folder}: its type {config.model_type!r} has no causal language model."
        )
    kind = class_of(config.model_type)
    return kind.from_pretrained(folder, config=config, dtype="auto", local_files_only=True).eval()
