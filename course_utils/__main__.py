"""The command line: `python -m course_utils --mode evaluate` (or kv_evaluate, benchmark, ...)."""

import argparse
import importlib.util
import sys
from pathlib import Path

import torch
from torch import nn

from . import benchmark, cache_bugs
from .evaluation import (
    RECALL_AIMS,
    TEST_CASES,
    TestCase,
    evaluate,
    kv_evaluate,
    load_test_cases,
    max_seq_len,
    recall,
)
from .generation import stream
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
PROMPT = "Mia put the red key in the wooden box. Tom walked to the river. Where is the red key?"


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
    parser.add_argument("--model", metavar="FILE.py:ClassName", help="judge this class instead")
    parser.add_argument("--prompt", default=PROMPT, help="for generate, in the toy language")
    parser.add_argument("--max_new_tokens", type=int, default=60, help="for generate")
    parser.add_argument("--temperature", type=float, default=0.0, help="for generate; 0 is greedy")
    parser.add_argument("--num_stories", type=int, default=700, help="for recall")
    parser.add_argument("--seed", type=int, default=0, help="for generate and recall")
    return parser


def model_class(spec: str | None) -> type[nn.Module]:
    """The class named by FILE.py:ClassName. Raises ValueError if there is none."""
    if spec is None:
        return DecoderOnlyTransformer
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
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"--model {spec}: {path.name} has no torch.nn.Module class {name!r}.")
    return found


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
    model = model_class(args.model)(**shape(args))
    load_weights(model, args.model_state_dict)
    return model.to(choose_device(args.device)).eval()


def run_evaluate(model: nn.Module, cases: list[TestCase]) -> bool:
    report = evaluate(model, cases)
    print(report)
    return report.all_passed


def run_kv_evaluate(model: nn.Module, cases: list[TestCase], thorough: bool) -> bool:
    """Print the report and, if it failed, its diagnosis; True if it passed."""
    report = kv_evaluate(model, cases, thorough=thorough)
    print(report)
    if not report.all_passed:
        try:
            print(f"  Diagnosis: {cache_bugs.diagnose(report)}")
        except NotImplementedError:
            print("  Diagnosis: something that it needs is not written yet.")
    return report.all_passed


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
    cases = None
    if args.mode in ("evaluate", "kv_evaluate", "run"):
        cases = load_test_cases(args.test_cases)
    model = build_model(args)
    passed = []
    if args.mode in ("evaluate", "run"):
        passed.append(run_evaluate(model, cases))
    if args.mode in ("kv_evaluate", "run"):
        passed.append(run_kv_evaluate(model, cases, args.thorough))
    if args.mode in ("benchmark", "run"):
        passed.append(run_benchmark(model))
    if args.mode == "generate":
        passed.append(run_generate(model, args))
    if args.mode == "recall":
        passed.append(run_recall(model, args))
    return all(passed)


def main() -> int:
    args = build_parser().parse_args()
    try:
        return 0 if run(args) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        print(f"error: {kind}{' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
