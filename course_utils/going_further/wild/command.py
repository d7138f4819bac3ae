"""What the command line has for models of `transformers`: its options, and a judgement by them."""

import argparse
import os
from pathlib import Path

from torch import nn

from .caches import KINDS
from .judge import Judgement, judge, model_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--transformers",
        metavar="NAME_OR_FOLDER",
        help="for kv_evaluate: a model type of transformers, made small and with drawn weights, or "
        "the folder of a checkpoint",
    )
    parser.add_argument(
        "--cache",
        choices=KINDS,
        default="own",
        help="for a model of transformers: the kind of cache; own is the one that it makes",
    )
    parser.add_argument(
        "--layers", type=int, help="for --transformers with a type: how many layers"
    )


OF_THE_COURSE = ("vocab_size", "d_model", "d_ff", "num_layers", "num_heads")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for options that would be ignored, and for what can't be written."""
    check_report_file(args.json)
    if args.transformers is None:
        check_without_a_type(args)
        return
    if args.mode != "kv_evaluate":
        raise ValueError(f"--transformers is for --mode kv_evaluate, not for {args.mode}.")
    if args.model:
        raise ValueError("--model and --transformers name two models; expected one.")
    if not args.transformers.strip():
        raise ValueError(
            "--transformers: expected a model type, such as llama, or a checkpoint's folder."
        )
    if args.layers is not None and (args.layers < 1 or Path(args.transformers).is_dir()):
        raise ValueError("--layers is for --transformers with a model type, and at least 1.")
    if args.max_seq_len is not None and args.max_seq_len < 1:
        raise ValueError(f"--max_seq_len {args.max_seq_len}: must be at least 1.")
    if ignored := [name for name in OF_THE_COURSE if getattr(args, name) is not None]:
        raise ValueError(
            f"--{ignored[0]} is for the course's model; a type of transformers has --layers."
        )


def check_without_a_type(args: argparse.Namespace) -> None:
    if args.layers is not None:
        raise ValueError("--layers is for --transformers with a model type, and at least 1.")
    if args.cache != "own" and not args.model:
        raise ValueError(
            f"--cache {args.cache} is for a model of transformers: see --transformers."
        )


def check_report_file(name: str | None) -> None:
    """Raise ValueError if a report can't be written there; found out before a long judgement."""
    if name is None:
        return
    file = Path(name)
    if not name.strip() or file.is_dir():
        raise ValueError(f"--json {name}: expected the name of a file, such as report.json.")
    if not file.parent.is_dir():
        raise ValueError(f"--json {name}: no folder {file.parent} is there; make it first.")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"--json {name}: it can't be written; expected a place that is yours.")


def model_as_asked(args: argparse.Namespace) -> nn.Module:
    """The model of --transformers. Raises ValueError, with what to do, if it can't be had."""
    try:
        return model_of(args.transformers, args.layers)
    except ValueError:
        raise
    except Exception as error:
        what = "its config.json and weights can't be loaded; expected what `save_pretrained` writes"
        if not Path(args.transformers).is_dir():
            what = "this type can't be made small; save a model of it and name the folder"
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"--transformers {args.transformers}: {what} ({reason})") from error


def judge_as_asked(model: nn.Module, args: argparse.Namespace) -> Judgement:
    """Judge a model of the library as the options say."""
    line = f"Adapted(model, Use({args.cache!r}))"
    if args.transformers:
        line = f"adapted({args.transformers!r}, layers={args.layers}, cache={args.cache!r})"
    name = args.transformers or args.model
    return judge(model, name, args.cache, args.max_seq_len, args.thorough, line=line)
