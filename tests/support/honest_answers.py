"""Right answers to exercise 1 of notebook 01 as people write them: each has its full points."""

from attacks import RIGHT

HONEST = {
    "as in the course": RIGHT,
    "prints and warns": RIGHT.replace(
        "    top =",
        "    print('scores', scores.shape)\n    import warnings; warnings.warn('w')\n    top =",
    ),
    "imports more": "import numpy as np\nfrom functools import partial\n" + RIGHT,
    "plots": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n" + RIGHT,
    "magic": "%matplotlib inline\n" + RIGHT,
    "lambda": """
import torch.nn.functional as f
softmax = lambda s: f.softmax(
    s.float() if s.dtype in (torch.half, torch.bfloat16) else s, dim=-1
).nan_to_num(0.0).to(s.dtype)""",
    "class": RIGHT.replace("def softmax", "def of") + "class Softmax:\n    def __call__(self, s):\n"
    "        return of(s)\nsoftmax = Softmax()\n",
    "logsumexp": """
def softmax(s):
    x = s.float() if s.dtype.itemsize == 2 else s
    log = torch.logsumexp(x, -1, keepdim=True)
    return torch.exp(x - log).masked_fill(log.isneginf(), 0).to(s.dtype)""",
    "rows by loop": """
def softmax(s):
    x, rows = s.float() if s.dtype.itemsize == 2 else s, []
    for row in x.reshape(-1, s.shape[-1]):
        if row.max() > -math.inf:
            e = [torch.exp(v - row.max()) for v in row]
            rows.append(torch.stack(e) / sum(e))
        else:
            rows.append(torch.zeros_like(row))
    return torch.stack(rows).view(s.shape).to(s.dtype)""",
    "grad and device": "torch.set_grad_enabled(False)\n" + RIGHT,
    "docstring with the stub's words": RIGHT.replace(
        "    x =", '    """Once: raise NotImplementedError("Your turn: ...")."""\n    x =', 1
    ),
    "refuses on purpose": RIGHT.replace(
        "    x =",
        "    if scores.dim() == 0:\n        raise NotImplementedError('no row')\n    x =",
        1,
    ),
    "old stub above a magic": "# raise NotImplementedError(...)\n%matplotlib inline\n" + RIGHT,
    "a sum of 500 terms": "zero = " + " + ".join(["0"] * 500) + "\n" + RIGHT,
    "a chain of 200 calls": "text = 'a'" + ".strip()" * 200 + "\n" + RIGHT,
    "a number of 5,000 digits": "import sys\nsys.set_int_max_str_digits(0)\n"
    "large = " + "9" * 4000 + "\n" + RIGHT,
    "asks the system": "import subprocess\nsubprocess.run(['ls', '/'], check=True)\n" + RIGHT,
    "threads and processes": """
from concurrent.futures import ThreadPoolExecutor
import multiprocessing, os
with ThreadPoolExecutor(4) as pool:
    list(pool.map(abs, range(100)))
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(abs, range(10))
"""
    + RIGHT,
    "keeps notes in files": """
import fcntl, sqlite3, tempfile
from pathlib import Path
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "notes.txt").write_text("x" * 1_000_000)
    with open(Path(folder, "lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    with sqlite3.connect(Path(folder, "data.db")) as book:
        book.execute("create table t (x)")
        book.execute("insert into t values (1)")
"""
    + RIGHT,
    "a thousand lines": "for i in range(1000):\n    print(i, 'x' * 50)\n" + RIGHT,
    "large pictures": """
import matplotlib.pyplot as plt
for _ in range(3):
    plt.figure(figsize=(9, 6))
    plt.imshow(torch.rand(200, 200))
    plt.show()
"""
    + RIGHT,
    "times itself": "%timeit -n 10 -r 2 torch.ones(3).sum()\n" + RIGHT,
    "much memory for a moment": "x = torch.ones(200_000_000)\ndel x\n" + RIGHT,
    "waits a little": "import time\ntime.sleep(3)\n" + RIGHT,
    "ends its own processes": """
import signal, subprocess
one = subprocess.Popen(["sleep", "600"])
one.send_signal(signal.SIGTERM)
one.wait()
"""
    + RIGHT,
}
