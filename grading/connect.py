"""What Jupyter starts as a kernel: asks the sandbox's forker for one, and lives as long as it does.

    python connect.py SOCKET CONNECTION_FILE

The kernel's own sockets are made here, and handed over open: the sandbox sees no folder of ours.
"""

import json
import socket
import sys

NAMES = ("shell", "iopub", "stdin", "control", "hb")


def main(address: str, connection_file: str) -> None:
    """Returns when the kernel has ended. Raises OSError if there is no sandbox."""
    with open(connection_file, "rb") as file:
        connection = json.load(file)
    forker = socket.socket(socket.AF_UNIX)
    forker.connect(address)
    listening = [socket.socket(socket.AF_UNIX) for _ in NAMES]
    for name, one in zip(NAMES, listening, strict=True):
        one.bind(f"{connection['ip']}-{connection[f'{name}_port']}")
        one.listen()
    socket.send_fds(forker, [json.dumps(connection).encode()], [one.fileno() for one in listening])
    for one in listening:
        one.close()
    forker.recv(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
