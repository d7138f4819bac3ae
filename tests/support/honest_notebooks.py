"""Notebooks 01 as honest students leave them: every exercise is solved, and has its points.

Each changes the student edition, in which the course's answers have been filled in.
"""

import copy
import json

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell
from submitted import index_of

from grading.graft import exercises

NAMES = ("softmax", "causal_mask", "attention", "multi_head")
STUB = '    raise NotImplementedError("Your turn: the card above says what to build.")'


def _cell(notebook, name):
    return notebook.cells[index_of(notebook, name)]


def _before(notebook, name, *sources):
    at = index_of(notebook, name)
    notebook.cells[at:at] = map(new_code_cell, sources)


def _after(notebook, name, *sources):
    at = index_of(notebook, name) + 1
    notebook.cells[at:at] = map(new_code_cell, sources)


def _replace(notebook, name, *pairs):
    for old, new in pairs:
        assert old in _cell(notebook, name).source, old
        _cell(notebook, name).source = _cell(notebook, name).source.replace(old, new)


def _stub(name):
    code = exercises("01")[name].code
    head = code[: code.index("    ### BEGIN")]
    return f"{head}{STUB}\n"


def as_it_is(notebook):
    pass


def stub_kept_above(notebook):
    """The stub's cell was copied, and the answer is in the copy."""
    at = index_of(notebook, "softmax")
    first = copy.deepcopy(notebook.cells[at])
    first.source = _stub("softmax")
    notebook.cells.insert(at, first)


def answer_in_a_cell_below_the_stub(notebook):
    answer = _cell(notebook, "softmax").source
    _cell(notebook, "softmax").source = _stub("softmax")
    _after(notebook, "softmax", answer)


def raise_left_below_the_return(notebook):
    _cell(notebook, "softmax").source += "\n" + STUB


def attempt_that_cannot_be_parsed(notebook):
    """A copy of the cell with an attempt that was given up."""
    at = index_of(notebook, "softmax")
    first = copy.deepcopy(notebook.cells[at])
    first.source = "def softmax(scores):\n    return torch.exp(scores"
    notebook.cells.insert(at, first)


def parts_with_a_cell_magic(notebook):
    at = index_of(notebook, "attention")
    first, second = _cell(notebook, "attention").source.split("\n\n\n")
    part = copy.deepcopy(notebook.cells[at])
    notebook.cells[at].source, part.source = first, "%%time\n" + second
    notebook.cells.insert(at + 1, part)
    notebook.cells.insert(at + 1, new_markdown_cell("And now:"))
    notebook.cells.insert(at + 1, new_code_cell("%%timeit -n 1 -r 1\ntorch.ones(3).sum()"))


def imports_at_the_top(notebook):
    """Beside those that are there, used in the last exercises only."""
    first = next(c for c in notebook.cells if "import torch" in c.source)
    first.source = (
        first.source + "\nfrom math import inf as infinity, sqrt\nimport functools as ft\n"
    )
    _replace(notebook, "attention", ("math.sqrt", "sqrt"), ("-math.inf", "-infinity"))
    _replace(
        notebook, "multi_head", ("        q, k, v", "        ft.partial(print)()\n        q, k, v")
    )


def helper_for_all_exercises(notebook):
    helper = "def low():\n    return -math.inf\n\nTIMES = 1"
    _before(notebook, "softmax", helper)
    _replace(notebook, "attention", ("-math.inf", "TIMES * low()"))


def helper_in_another_exercise(notebook):
    _cell(notebook, "softmax").source += "\n\n\ndef weighted(weights, v):\n    return weights @ v\n"
    _replace(
        notebook,
        "attention",
        ("attention_weights(q, k, mask) @ v", "weighted(attention_weights(q, k, mask), v)"),
    )


def helper_far_below(notebook):
    _replace(notebook, "softmax", ("-math.inf", "lowest()"))
    notebook.cells.append(new_code_cell("def lowest():\n    return -math.inf"))


def names_of_the_grader(notebook):
    """Built-ins and modules, used as names for something else."""
    names = "max, min, sum, abs, sorted, round, all, any = range(8)\nlist, str, print = 1, 2, 3\n"
    names += "F, copy, json, time, numbers, np, len, int, bool, float = range(10)\n"
    names += "isinstance = zip = map = range = tuple = dict = sets = enumerate = 0"
    _after(notebook, "softmax", names)
    _after(notebook, "causal_mask", names)
    _after(notebook, "multi_head", "F, copy, json, math_, list, max = 128, 1, 2, 3, 4, 5")


def star_imports(notebook):
    _before(notebook, "softmax", "from numpy import *\nfrom torch import *\nimport torch")


def doubles(notebook):
    _before(notebook, "attention", "torch.set_default_dtype(torch.float64)")
    _before(notebook, "multi_head", "torch.set_default_dtype(torch.float64)\ntorch.manual_seed(3)")


def no_gradients(notebook):
    for name in NAMES:
        _before(notebook, name, "torch.set_grad_enabled(False)\ntorch.set_num_threads(1)")


def warnings_are_errors(notebook):
    for name in NAMES:
        _before(notebook, name, "import warnings\nwarnings.simplefilter('error')")


def imports_from_the_course_in_the_answer(notebook):
    _replace(
        notebook,
        "softmax",
        ("def softmax", "from course_utils import checks, plots\n\ndef softmax"),
    )
    _replace(
        notebook,
        "attention",
        ("def attention_w", "from course_utils import *\nimport course_utils\n\n\ndef attention_w"),
    )


def check_called_in_the_answer(notebook):
    _cell(notebook, "softmax").source += "\n\nprint(checks.check_softmax(softmax))"


def magics(notebook):
    _before(
        notebook,
        "softmax",
        "!pip install numpy",
        "%pip list",
        "%load_ext autoreload\n%autoreload 2",
    )
    _after(
        notebook,
        "softmax",
        "%timeit -n 3 -r 1 softmax(torch.ones(3))",
        "%%time\nsoftmax(torch.ones(3))",
        "?softmax",
        "softmax?",
        "%who",
        "%%html\n<b>x</b>",
        "%%bash\necho x",
        "%%writefile a.py\nx = 1",
    )
    _cell(notebook, "causal_mask").source = "%%time\n" + _cell(notebook, "causal_mask").source


def awaits(notebook):
    _before(
        notebook,
        "softmax",
        "import asyncio\nawait asyncio.sleep(0.1)",
        "async def f():\n    return 1\nawait f()",
    )


def unicode_tabs_and_types(notebook):
    _cell(notebook, "softmax").source = '''
from typing import Optional, Annotated
def softmax(σ: "Annotated[Tensor, '...']", ) -> Optional[Tensor]:
\t"""σ → ω"""
\tμ = σ.float() if σ.dtype in (torch.half, torch.bfloat16) else σ
\ttop = μ.amax(-1, keepdim=True)
\tω = torch.exp(μ - top.masked_fill(top == -math.inf, 0))
\t𝑠 = ω.sum(-1, keepdim=True)
\treturn (ω / 𝑠.masked_fill(𝑠 == 0, 1)).to(σ.dtype)
'''


def dos_lines(notebook):
    for cell in notebook.cells:
        cell.source = cell.source.replace("\n", "\r\n")


def old_format(notebook):
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        cell.pop("id", None)


def same_ids(notebook):
    for cell in notebook.cells:
        cell["id"] = "same"


def metadata_lost(notebook):
    for cell in notebook.cells:
        cell.metadata.clear()
    notebook.metadata.clear()


def metadata_lost_and_cells_added(notebook):
    _before(notebook, "softmax", "def low():\n    return -math.inf", "1 / 0")
    _replace(
        notebook, "softmax", ("-math.inf", "low()"), ("return (weights", "return same(weights")
    )
    _after(notebook, "softmax", "def same(x):\n    return x")
    _replace(notebook, "attention", ("-math.inf", "low()"))
    at = index_of(notebook, "attention")
    first, second = _cell(notebook, "attention").source.split("\n\n\n")
    notebook.cells[at].source = first
    notebook.cells.insert(at + 1, new_code_cell(second))
    metadata_lost(notebook)


def assigned_and_metadata_lost(notebook):
    _cell(notebook, "softmax").source = """
wide = lambda s: s.float() if s.dtype.itemsize == 2 else s
softmax = lambda s: torch.softmax(wide(s), -1).nan_to_num(0).to(s.dtype)
"""
    metadata_lost(notebook)


def other_kernel(notebook):
    notebook.metadata["kernelspec"] = {"name": "ir", "language": "R", "display_name": "R 4"}
    notebook.metadata["language_info"] = {"name": "R"}


def formatted_by_a_tool(notebook):
    """Every cell is a little different."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade") is not True:
            cell.source = cell.source.replace(", ", ",  ").replace("'", '"') + "\n\n# formatted"


def large_outputs(notebook):
    out = nbformat.v4.new_output("stream", text="x" * 3_000_000)
    _cell(notebook, "softmax").outputs = [out] * 3


def plots(notebook):
    draw = """
%config InlineBackend.figure_format = 'retina'
%matplotlib inline
import matplotlib.pyplot as plt
plt.style.use("ggplot")
for _ in range(4):
    plt.figure()
    plt.plot(torch.rand(300))
    plt.show()
"""
    _before(notebook, "softmax", draw)
    _after(notebook, "multi_head", draw)


def errors_on_purpose(notebook):
    _before(notebook, "softmax", "1 / 0", "assert False, 'look'", "def f(:", "undefined + 1")
    _after(
        notebook,
        "causal_mask",
        "raise ValueError('on purpose')",
        "import sys\nsys.exit()",
        "exit()",
    )


def deletes_and_globals(notebook):
    _before(notebook, "softmax", "x, count = 1, 0\ndel x")
    _replace(
        notebook,
        "softmax",
        ("    ### BEGIN SOLUTION", "    global count\n    count += 1"),
        ("    ### END SOLUTION", ""),
    )


SIZES = """
from dataclasses import dataclass


@dataclass
class Sizes:
    first: int
    last: int

    def range(self, device):
        return torch.arange(self.first, self.last, device=device)
"""


def dataclass_of_its_own(notebook):
    _before(notebook, "causal_mask", SIZES)
    old = "torch.arange(num_keys - num_queries, num_keys, device=device)"
    new = "Sizes(num_keys - num_queries, num_keys).range(device)"
    _replace(notebook, "causal_mask", (old, new))


def super_in_the_old_way(notebook):
    _replace(
        notebook, "multi_head", ("super().__init__()", "super(MultiHeadAttention, self).__init__()")
    )


LOGGED = """
def logged(f):
    @wraps(f)
    def inner(*args, **named):
        print(f.__name__)
        return f(*args, **named)
    return inner
"""


def wrapped(notebook):
    _before(notebook, "softmax", "from functools import wraps", LOGGED)
    _replace(notebook, "softmax", ("def softmax", "@logged\ndef softmax"))
    _replace(notebook, "attention", ("def attention(", "@logged\ndef attention("))


def deprecated_and_loud(notebook):
    lines = "import warnings\nwarnings.warn('old', DeprecationWarning)\n"
    lines += "np.random.seed(0)\ntorch.manual_seed(0)\nquery_position"
    lines = "    " + lines.replace("\n", "\n    ")
    _replace(notebook, "causal_mask", ("    query_position", lines))


def notes_between(notebook):
    for number, name in enumerate(NAMES):
        at = index_of(notebook, name)
        notebook.cells[at + 1 : at + 1] = [new_markdown_cell(f"# note {number}"), new_code_cell("")]
    notebook.cells.insert(0, nbformat.v4.new_raw_cell("raw"))


def in_reverse_order(notebook):
    """The cells were moved around."""
    at, other = index_of(notebook, "softmax"), index_of(notebook, "attention")
    notebook.cells[at], notebook.cells[other] = notebook.cells[other], notebook.cells[at]


def class_in_parts(notebook):
    """Methods are given to the class in cells of their own."""
    code = _cell(notebook, "multi_head").source
    head, forward = code.split("    def forward")
    lines = ("    def forward" + forward).splitlines()
    method = "\n".join(line[4:] for line in lines)
    _cell(notebook, "multi_head").source = head + "    def forward(self, x):\n" + "    " + STUB
    _after(notebook, "multi_head", method + "\n\nMultiHeadAttention.forward = forward")


HONEST_NOTEBOOKS = {
    name: change
    for name, change in list(globals().items())
    if callable(change)
    and getattr(change, "__module__", "") == __name__
    and not name.startswith("_")
}


def honest_notebook(name, edition):
    notebook = copy.deepcopy(edition)
    for exercise in exercises("01").values():
        _cell(notebook, exercise.name).source = exercise.code
    HONEST_NOTEBOOKS[name](notebook)
    return json.dumps(notebook).encode()
