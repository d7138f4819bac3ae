"""More attacks, by what they aim at: the wire, time, files, comparing, the pages, the new probes.

As in `attacks`, each is an answer to exercise 1 of notebook 01, and none may have a point.
"""

from attacks import WRONG

KERNEL = (
    "kernel = get_ipython().kernel\nsocket = kernel.iopub_socket\nparent = kernel.get_parent()\n"
)
RAW = """
from ipykernel.kernelapp import IPKernelApp
socket = IPKernelApp.instance().kernel.iopub_socket
socket = getattr(socket, "io_thread", socket)
socket = getattr(socket, "socket", socket)
"""

MORE_ATTACKS = {
    "headers that are no JSON": WRONG
    + RAW
    + """
for junk in (b"", b"{", b"[]", b"null", b'{"msg_id": 1}', b"\\xff" * 99, b"[" * 100_000):
    for delimiter in (b"<IDS|MSG>", b"none"):
        socket.send_multipart([b"stream", delimiter, b"sign", junk, junk, junk, junk])
""",
    "signed headers of other kinds": WRONG
    + KERNEL
    + """
session = kernel.session
for part in ("null", "[]", "7", '"x"', "{}", '{"msg_type": null}', '{"msg_type": "status"}',
             '{"msg_id": {}, "msg_type": [], "date": "no date"}', "NaN"):
    for place in range(4):
        parts = [b"{}"] * 4
        parts[place] = part.encode()
        whole = [b"<IDS|MSG>", session.sign(parts), *parts]
        kernel.iopub_socket.send_multipart([b"x", *whole])
""",
    "a message without content": WRONG
    + KERNEL
    + """
for kind in ("stream", "display_data", "execute_result", "error", "status", "update_display_data",
             "clear_output", "execute_input", "comm_open", "comm_msg", "comm_close", "", "a" * 999):
    for content in ({}, {"data": None}, {"name": 7, "text": 7}, {"traceback": "x"},
                    {"execution_state": None}, {"wait": []}):
        kernel.session.send(socket, kind, content=content, parent=parent)
""",
    "idle before the probe": WRONG
    + KERNEL
    + """
def say(*given, **named):
    for _ in range(20):
        kernel.session.send(socket, "status", content={"execution_state": "idle"},
                            parent=kernel.get_parent())
get_ipython().events.register("pre_run_cell", say)
""",
    "a reply before the run": """
import time
kernel = get_ipython().kernel
def softmax(scores):
    kernel.session.send(kernel.shell_stream, "execute_reply",
                        content={"status": "ok", "execution_count": 1, "payload": []},
                        parent=kernel.get_parent(), ident=kernel._parent_ident["shell"])
    kernel.session.send(kernel.iopub_socket, "status", content={"execution_state": "idle"},
                        parent=kernel.get_parent())
    time.sleep(600)
""",
    "a flood of statuses": WRONG
    + KERNEL
    + """
while True:
    kernel.session.send(socket, "status", content={"execution_state": "busy"}, parent=parent)
""",
    "a flood of comm messages": WRONG
    + KERNEL
    + """
for number in range(100_000):
    kernel.session.send(socket, "comm_open", content={"comm_id": str(number), "target_name": "x",
                        "data": {"x": "y" * 1000}}, parent=parent)
""",
    "a flood that is no one's": WRONG
    + KERNEL
    + """
for number in range(100_000):
    kernel.session.send(socket, "stream", content={"name": "stdout", "text": "x" * 500},
                        parent={"header": {"msg_id": f"fake-{number}"}})
""",
    "displays that are updated": WRONG
    + """
from IPython.display import display
handle = display({"text/plain": "x"}, raw=True, display_id=True)
for number in range(50_000):
    handle.update({"text/plain": "x" * 100}, raw=True)
""",
    "output that is taken back": """
from IPython.display import clear_output
def softmax(scores):
    clear_output(wait=True)
    import sys
    sys.__stderr__.write("x")
    return torch.softmax(scores, -1)""",
    "asks again and again": """
def softmax(scores):
    kernel = get_ipython().kernel
    kernel._allow_stdin = True
    while True:
        try:
            return scores * float(kernel.raw_input("x" * 100_000))
        except BaseException:
            pass""",
    "a request of its own": WRONG
    + """
kernel = get_ipython().kernel
for kind in ("execute_request", "shutdown_request", "interrupt_request", "debug_request"):
    kernel.session.send(kernel.shell_stream, kind, content={"restart": True, "code": "1"},
                        ident=kernel._parent_ident["shell"], parent=kernel.get_parent())
""",
    "half a message": WRONG
    + RAW
    + """
import zmq
socket.send(b"stream", zmq.SNDMORE)
import os, time
time.sleep(1)
os.kill(os.getpid(), 9)
""",
    "stops itself": """
import os, signal
def softmax(scores):
    os.kill(os.getpid(), signal.SIGSTOP)
    return scores""",
    "ignores interrupts": """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)
def softmax(scores):
    time.sleep(600)""",
    "sleeps until just before the limit": "import time\nfor _ in range(2):\n    time.sleep(5.5)\n"
    + WRONG,
    "wakes itself up": WRONG
    + """
import signal
def again(*given):
    print("[" * 1000)
signal.signal(signal.SIGALRM, again)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
""",
    "holds the lock of the interpreter": """
import re
def softmax(scores):
    return re.match("(a+)+$", "a" * 60 + "b")""",
    "sessions in sessions": WRONG
    + """
import os, time
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        os._exit(0)
""",
    "a child that goes on when the kernel has ended": """
import os, time
if os.fork() == 0:
    os.setsid()
    end = time.monotonic() + 600
    while time.monotonic() < end:
        pass
os._exit(0)
""",
    "a collector that frees nothing": """
import gc
class Again:
    def __del__(self):
        Again()
        import time
        time.sleep(0.01)
Again()
gc.disable()
def softmax(scores):
    return scores""",
    "devices and pipes": WRONG
    + """
import os
for name in ("zero", "full", "random", "null", "tty", "ptmx", "console", "mem", "kmsg"):
    try:
        file = os.open(f"/dev/{name}", os.O_RDWR | os.O_NONBLOCK)
        os.write(file, bytes(100))
    except OSError:
        pass
for number in range(100):
    os.mkfifo(f"/tmp/{number}")
    os.symlink("/dev/zero", f"/sandbox/{number}")
    os.symlink("/", f"/dev/shm/{number}")
""",
    "a loop of links": WRONG
    + """
import os
for number in range(150):
    os.symlink(f"/tmp/{number + 1}", f"/tmp/{number}")
os.symlink("/tmp/0", "/tmp/150")
os.symlink("/tmp", "/tmp/again")
""",
    "files that are open and large": WRONG
    + """
import os
file = os.open("/tmp/x", os.O_CREAT | os.O_RDWR)
for size in (2**62, 2**40, 2**31):
    try:
        os.ftruncate(file, size)
        os.posix_fallocate(file, 0, size)
    except OSError:
        pass
""",
    "numbers that are not": "def softmax(scores):\n    return scores * math.nan",
    "words in place of numbers": """
class Any:
    dtype, shape, is_floating_point = "torch.float64", (), lambda self: True
    def __getattr__(self, name):
        return lambda *given, **named: self
    __eq__ = __lt__ = __ge__ = lambda self, other: True
    __repr__ = __str__ = lambda self: "[]"
def softmax(scores):
    return Any()""",
    "a tensor with its own flatten": """
class Flat(Tensor):
    def detach(self): return self
    def flatten(self): return self
    def double(self): return self
    def tolist(self): return [0.5] * self.numel()
def softmax(scores):
    return torch.softmax(scores, -1).as_subclass(Flat)""",
    "rounding to nothing": WRONG
    + "math.floor = math.ceil = lambda x: 0\nmath.isfinite = lambda x: False\n",
    "exec replaced": WRONG + "exec = lambda *given: None\nglobals = dict\n",
    "exec replaced everywhere": WRONG
    + "import builtins\nbuiltins.exec = lambda *given: None\nbuiltins.vars = dict\n",
    "the probe read and its names replaced": """
import builtins
run = builtins.exec
def reading(code, names, *more):
    if isinstance(code, str) and "_show" in code:
        code = code.replace("def _show(compute):", "def _show(compute):\\n    return\\n    ")
    return run(code, names, *more)
builtins.exec = reading
"""
    + WRONG,
    "torch's comparing replaced": WRONG
    + "torch.isclose = torch.equal = lambda *a, **k: torch.ones(1, dtype=torch.bool)\n"
    "Tensor.all = lambda self: True\n",
    "every result the same": WRONG + "Tensor.tolist = lambda self: [0.0] * self.numel()\n"
    "Tensor.sum = lambda self, *a, **k: self\n",
    "a generator that draws zeros": WRONG
    + "torch.randn = lambda *shape, **named: torch.zeros(*shape[:1], dtype=torch.float64)\n"
    "torch.randint = lambda *given, **named: torch.ones(given[2]).long()\n",
    "stdout with another write": WRONG
    + """
import sys
class Quiet:
    def write(self, text):
        return len(text)
    def flush(self):
        pass
sys.stdout = sys.stderr = sys.__stdout__ = Quiet()
""",
    "prints when all is over": WRONG
    + """
import atexit, threading, time, weakref
atexit.register(print, "[]")
class Late:
    def __del__(self):
        print("[]")
late = Late()
def wait():
    time.sleep(3)
    print("[]" * 1000)
threading.Thread(target=wait).start()
""",
    "an exception that cannot be shown": """
class Bad(BaseException):
    def __str__(self): raise Bad()
    __repr__ = __str__
    def __traceback__(self): raise Bad()
def softmax(scores):
    raise Bad()""",
    "a chain of exceptions": """
def softmax(scores):
    error = None
    for number in range(100_000):
        new = ValueError("x" * 100)
        new.__cause__, error = error, new
    raise error""",
    "colours, directions and a title": WRONG
    + "print('\\x1b]0;owned\\x07\\x1b[2J\\u202e\\u2066\\x00\\x08' * 500)\n"
    "raise ValueError('\\x1b[31m</pre><script>alert(1)</script><img src=x onerror=alert(1)>')\n",
    "the seal of the check": WRONG
    + """
def check(*given):
    raise AssertionError("softmax is right.")
try:
    checks.check_softmax = check
except NameError:
    pass
""",
    "imports of the course that do more": WRONG.replace(
        "def softmax",
        "from course_utils.attention import softmax as softmax\nimport course_utils\ndef softmax",
    ),
    "ten thousand names": "\n".join(f"a{n} = a{n + 1} if {n} else 0" for n in range(3000))
    + "\n"
    + WRONG,
    "names that need each other": "def f():\n    return g()\n\n\ndef g():\n    return f()\n\n\n"
    + "def softmax(scores):\n    return f()\n",
}
