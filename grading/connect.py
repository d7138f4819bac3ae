"""What Jupyter starts as a kernel: asks the sandbox's forker for one, and lives as long as it does.

python connect.py SOCKET CONNECTION_FILE
"""

import os
import socket
import sys
import time

PATIENCE = 40.0  # seconds for a sandbox to start, on a busy machine


def main(address: str, connection_file: str) -> None:
    """Returns when the kernel has ended. Raises OSError if there is no sandbox."""
    end, jupyter = time.monotonic() + PATIENCE, os.getppid()
    while True:
        forker = socket.socket(socket.AF_UNIX)
        try:
            forker.connect(address)
            break
        except OSError:
            if time.monotonic() > end or os.getppid() != jupyter:
                raise
            time.sleep(0.02)
    with open(connection_file, "rb") as file:
        forker.sendall(file.read().replace(b"\n", b" ") + b"\n")
    forker.recv(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
