"""What the check cells of "is it right?" call: a report, the patients, moved rows (notebook 05)."""

import copy

import torch
from torch import nn

from ..cache_bugs import diagnose
from ..evaluation import Report
from .common import close, load_weights, tiny_model, verdict


def check_report(report: Report) -> None:
    """Raise AssertionError, with the first problem found, unless every case passed."""
    if not report.all_passed:
        problem = (report.problems or ["no check was run"])[0]
        raise AssertionError(
            f"{report.title}: {report.num_passed} of {len(report.cases)} cases passed. {problem}"
        )


@verdict
def check_cured(model_class: type[nn.Module]) -> str:
    """Notebook 05, exercises 1 to 4. Returns a verdict, or raises AssertionError: a diagnosis."""
    reference = tiny_model(max_seq_len=64)
    model = model_class(20, 12, 24, 2, 64, num_heads=3, dropout=0.0).eval()
    load_weights(model, reference)
    hint = _seen_in_the_cache(copy.deepcopy(model))
    diagnosis = diagnose(model, reference)
    if not diagnosis.right:
        raise AssertionError(f"{model_class.__name__} is still ill. {hint}{diagnosis}")
    return f"{model_class.__name__} is healthy: {diagnosis}"


def _seen_in_the_cache(model: nn.Module) -> str:
    """A sentence on a cache that is missing or counts wrongly after 6 tokens, or nothing."""
    try:
        _, cache = model(torch.arange(6).view(1, 6), use_cache=True)
        if cache is None:
            return "No cache comes back: does the function return the one it makes? "
        if cache.length == 6 * model.num_layers:
            return f"After 6 tokens length is {cache.length}: count them in one layer only. "
    except Exception as error:
        if "NoneType" in str(error):
            return "Something is None: does each function end in `return`? "
    return ""


@verdict
def check_reorder(cache_class: type) -> str:
    """Notebook 05, exercise 5. Returns a verdict; raises AssertionError on a wrong reorder."""
    model = tiny_model()
    ids = torch.arange(18).view(3, 6)
    rows = torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        cache = cache_class(model, 3)
        model(ids[:, :4], past_kv=cache, use_cache=True)
        cache.reorder(rows)
        if cache.batch_size != 5:
            raise AssertionError(
                f"After reorder with 5 rows, batch_size is {cache.batch_size}; expected 5."
            )
        try:
            found, _ = model(ids[rows, 4:], past_kv=cache, use_cache=True)
        except RuntimeError as error:
            raise AssertionError(
                f"After reorder with 5 rows nothing fits any more ({error}). Do keys *and* values "
                "move, in every layer?"
            ) from None
        expected = model(ids[rows])[0][:, 4:]
    close(found, expected, "after reorder([2, 0, 0, 1, 2]) of three rows, a logit of what follows")
    return f"{cache_class.__name__}.reorder is right: rows move, die and multiply, in every layer."
