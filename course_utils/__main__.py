"""The command line: `python -m course_utils --mode evaluate` (or kv_evaluate, benchmark, ...)."""

import argparse
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import nn

from . import benchmark, cache_bugs
from .evaluation import (
    RECALL_AIMS,
    TEST_CASES,
    Report,
    TestCase,
    evaluate,
    kv_evaluate,
    load_test_cases,
    max_seq_len,
    recall,
)
from .generation import stream
from .going_further import wild
from .stories import END, START, Tokenizer, split
from .transformer import (
    CONFIG,
    WEIGHTS,
    DecoderOnlyTransformer,
    choose_device,
    fuse_attention,
    load_config,
    load_weights,
)

SHAPE = ("vocab_size", "d_model", "d_ff", "num_layers", "max_seq_len", "num_heads")
PROMPT = "Mia put the red bell in the wooden box. Tom walked to the river. Where is the red bell?"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m course_utils", description=__doc__)
    modes = ["evaluate", "kv_evaluate", "benchmark", "generate", "recall", "run"]
    parser.add_argument(
        "--mode", choices=modes, default="run", help="run: evaluate, kv_evaluate, benchmark"
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="for kv_evaluate and run: draw ten times as many scripts, try more lengths; slow",
    )
    parser.add_argument("--model_state_dict", default=WEIGHTS, help="weights, a plain state dict")
    parser.add_argument("--test_cases", default=TEST_CASES, help="stored cases, JSON")
    for name in SHAPE:
        parser.add_argument(f"--{name}", type=int, help=f"default: the one in {CONFIG.name}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--model",
        metavar="FILE.py:NAME",
        help="judge this class instead; for kv_evaluate, also a function that returns a model",
    )
    wild.add_arguments(parser)
    parser.add_argument(
        "--json", metavar="FILE", help="for kv_evaluate: write the report there, too"
    )
    parser.add_argument("--prompt", default=PROMPT, help="for generate, in the toy language")
    parser.add_argument("--max_new_tokens", type=int, default=60, help="for generate")
    parser.add_argument("--temperature", type=float, default=0.0, help="for generate; 0 is greedy")
    parser.add_argument("--num_stories", type=int, default=700, help="for recall")
    parser.add_argument("--seed", type=int, default=0, help="for generate and recall")
    return parser


def named(spec: str) -> Any:
    """What FILE.py:NAME names: a module class, or a function. Raises ValueError for all else."""
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not name or path.suffix != ".py" or not path.is_file():
        raise ValueError(f"--model {spec}: expected FILE.py:ClassName with a file that exists.")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    module_spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not (isinstance(found, FunctionType) or is_module_class(found)):
        raise ValueError(
            f"--model {spec}: {path.name} has no torch.nn.Module class {name!r}, and no function."
        )
    return found


def is_module_class(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module)


def shape(args: argparse.Namespace) -> dict[str, int]:
    """The constructor's arguments: the course model's, but for the flags given.

    Weights of another width than the course model's have one head unless --num_heads says more.
    """
    config = load_config()
    given = {name: getattr(args, name) for name in SHAPE if getattr(args, name) is not None}
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"--{name} {value}: must be at least 1.")
    if given.get("d_model", config["d_model"]) != config["d_model"]:
        config["num_heads"] = 1
    return config | given


def build_model(args: argparse.Namespace) -> nn.Module:
    kind = named(args.model) if args.model else DecoderOnlyTransformer
    if not is_module_class(kind):
        raise ValueError(
            f"--model {args.model} is a function, whose model has weights of its own: it goes with "
            "--mode kv_evaluate only."
        )
    model = kind(**shape(args))
    load_weights(model, args.model_state_dict)
    return model.to(choose_device(args.device)).eval()


def finished_model(args: argparse.Namespace) -> nn.Module | None:
    """The model of --transformers, or of a function in a file: it has its weights. None without."""
    if args.transformers:
        return wild.model_as_asked(args)
    function = named(args.model) if args.model else None
    if not isinstance(function, FunctionType):
        return None
    try:
        model = function()
    except Exception as error:
        raise ValueError(
            f"--model {args.model}: called without arguments, the function raised "
            f"{type(error).__name__}: {error}; it should return a torch.nn.Module."
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"--model {args.model} returned {type(model).__name__}; expected a torch.nn.Module."
        )
    return model


def run_evaluate(model: nn.Module, cases: list[TestCase]) -> bool:
    report = evaluate(model, cases)
    print(report)
    return report.all_passed


def run_kv_evaluate(
    model: nn.Module, cases: list[TestCase], thorough: bool, file: str | None = None
) -> bool:
    """Print the report and, if it failed, its diagnosis; True if it passed.

    With `file`, the report is written there too, as JSON.
    """
    report = kv_evaluate(model, cases, thorough=thorough)
    print(report)
    diagnosis = None if report.all_passed else diagnosed(report)
    if diagnosis:
        print(f"  Diagnosis: {diagnosis}")
    write_json(file, report.as_dict() | {"diagnosis": diagnosis})
    return report.all_passed


def diagnosed(report: Report) -> str:
    try:
        return str(cache_bugs.diagnose(report))
    except NotImplementedError:
        return "something that the model needs is not written yet."


def write_json(file: str | None, found: dict[str, Any]) -> None:
    if file is not None:
        Path(file).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def run_wild(model: nn.Module, args: argparse.Namespace) -> bool:
    judgement = wild.judge_as_asked(model.to(choose_device(args.device)).eval(), args)
    print(judgement)
    write_json(args.json, judgement.as_dict())
    return judgement.all_passed


def run_benchmark(model: nn.Module) -> bool:
    """The assignment's sweep, then its second benchmark, on a prompt of 10 tokens.

    The course's own model runs with fused attention: a slow baseline would flatter the cache.
    """
    if type(model) is DecoderOnlyTransformer:
        model = fuse_attention(model)
    prompt = torch.ones(1, 10, dtype=torch.long, device=next(model.parameters()).device)
    limit = max_seq_len(model)
    room = limit - prompt.size(1)
    lengths = [n for n in benchmark.LENGTHS if n <= room]
    if not lengths:
        raise ValueError(f"benchmark needs max_seq_len of at least 20, and this model has {limit}.")
    contenders = (benchmark.NO_CACHE, benchmark.OWN_CACHE)
    times = benchmark.sweep(
        model,
        prompt,
        [min(n, max(lengths)) for n in benchmark.ROUNDS],
        contenders,
        progress=sys.stderr.isatty(),
    )
    table = benchmark.totals(times, lengths)
    for length, row in table.iterrows():
        plain, cached = (row[contender, "median"] for contender in contenders)
        print(f"Seq Len: {length} | No KV: {plain:.4f}s | With KV: {cached:.4f}s")
    for length in sorted(set(benchmark.LENGTHS) - set(lengths)):
        print(f"Seq Len: {length} | left out: max_seq_len is {limit}")
    speed_up = benchmark.speed_up(times, 10, benchmark.OWN_CACHE)
    print(f"10 tokens after a prompt of 10:\n  Speedup: {speed_up:.2f}x")
    return True


def run_generate(model: nn.Module, args: argparse.Namespace) -> bool:
    tokenizer = Tokenizer()
    device = next(model.parameters()).device
    words = split(args.prompt)
    ids = tokenizer.encode(words if words[:1] == [START] else [START, *words])
    generator = torch.Generator(device).manual_seed(args.seed)
    tokens = stream(
        model,
        torch.tensor([ids], device=device),
        args.max_new_tokens,
        args.temperature,
        generator=generator,
        stop_token=tokenizer.ids[END],
    )
    for token in tokens:
        ids.append(token.item())
    print(tokenizer.decode([i for i in ids if tokenizer.words[i] not in (START, END)]))
    return True


def run_recall(model: nn.Module, args: argparse.Namespace) -> bool:
    table = recall(model, args.num_stories, args.seed, progress=sys.stderr.isatty())
    for row in table.itertuples():
        print(f"Recall {row.Index}: {row.recall:.3f} (n={row.questions})")
    return all(table.loc[span, "recall"] >= aim for span, aim in RECALL_AIMS.items())


def run(args: argparse.Namespace) -> bool:
    """Do what `args.mode` says; True if everything passed."""
    if args.thorough and args.mode not in ("kv_evaluate", "run"):
        raise ValueError(
            f"--thorough is for --mode kv_evaluate and --mode run; {args.mode} judges no cache."
        )
    if args.json and args.mode not in ("kv_evaluate", "run"):
        raise ValueError(f"--json writes the report of kv_evaluate; {args.mode} has none.")
    wild.check_arguments(args)
    finished = finished_model(args) if args.mode == "kv_evaluate" else None
    if finished is not None and wild.is_of_the_library(finished):
        return run_wild(finished, args)
    if finished is not None:
        finished = finished.to(choose_device(args.device)).eval()
        return run_kv_evaluate(finished, [], args.thorough, args.json)
    cases = None
    if args.mode in ("evaluate", "kv_evaluate", "run"):
        cases = load_test_cases(args.test_cases)
    model = build_model(args)
    passed = []
    if args.mode in ("evaluate", "run"):
        passed.append(run_evaluate(model, cases))
    if args.mode in ("kv_evaluate", "run"):
        passed.append(run_kv_evaluate(model, cases, args.thorough, args.json))
    if args.mode in ("benchmark", "run"):
        passed.append(run_benchmark(model))
    if args.mode == "generate":
        passed.append(run_generate(model, args))
    if args.mode == "recall":
        passed.append(run_recall(model, args))
    return all(passed)


def main() -> int:
    args = build_parser().parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # on Windows, a file has not all letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return 0 if run(args) else 1
    except KeyboardInterrupt:
        return 130
    except SystemExit:  # its status 0 would read as passed
        print("error: the model's code ended the program, as sys.exit does.", file=sys.stderr)
        return 2
    except Exception as error:
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        print(f"error: {kind}{' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
