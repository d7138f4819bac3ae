"""What the command line has for models of `transformers`: its options, and a judgement by them."""

import argparse

from torch import nn

from .caches import KINDS
from .judge import Judgement, judge


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


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for options that would be ignored."""
    if args.transformers and args.mode != "kv_evaluate":
        raise ValueError(f"--transformers is for --mode kv_evaluate, not for {args.mode}.")
    if args.transformers and args.model:
        raise ValueError("--model and --transformers name two models; expected one.")
    if args.layers is not None and (not args.transformers or args.layers < 1):
        raise ValueError("--layers is for --transformers with a model type, and at least 1.")
    if args.cache != "own" and not (args.transformers or args.model):
        raise ValueError(
            f"--cache {args.cache} is for a model of transformers: see --transformers."
        )


def judge_as_asked(model: nn.Module, args: argparse.Namespace) -> Judgement:
    """Judge a model of the library as the options say."""
    line = f"Adapted(model, Use({args.cache!r}))"
    if args.transformers:
        line = f"adapted({args.transformers!r}, layers={args.layers}, cache={args.cache!r})"
    name = args.transformers or args.model
    return judge(model, name, args.cache, args.max_seq_len, args.thorough, line=line)
