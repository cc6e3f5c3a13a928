#!/usr/bin/env -S python3 -S -E
"""Behaves like nvidia-cuda-mps-control, as far as the plugin uses it.

With -f it is the daemon, in the foreground: it listens at $CUDA_MPS_PIPE_DIRECTORY/control, and writes its PID beside
it and a log into $CUDA_MPS_LOG_DIRECTORY. Without arguments it sends each line of its standard input to that daemon.
A file `refuse` in the pipe folder keeps the daemon from starting; `deaf` keeps it from answering.
"""

import json
import os
import socket
import sys
import time

PIPE = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
SOCKET = os.path.join(PIPE, "control")


def serve() -> int:
    path = os.path.join(os.environ["CUDA_MPS_LOG_DIRECTORY"], "control.log")
    log = open(path, "a", buffering=1)  # noqa: SIM115 (as long as the process lives)
    if os.path.exists(os.path.join(PIPE, "refuse")):
        log.write("Failed to start: no GPU is visible\n")
        return 1
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(SOCKET)
    listening.listen()
    with open(os.path.join(PIPE, "nvidia-cuda-mps-control.pid"), "w") as file:
        file.write(str(os.getpid()))
    log.write(json.dumps({name: value for name, value in os.environ.items() if name.startswith("CUDA_")}) + "\n")
    while True:
        client, _ = listening.accept()
        with client, client.makefile("rw") as stream:
            command = stream.readline().strip()
            if os.path.exists(os.path.join(PIPE, "deaf")):
                time.sleep(3600)
            stream.write({"get_default_active_thread_percentage": "100.0", "quit": ""}.get(command, "?") + "\n")
            stream.flush()
            if command == "quit":
                os.unlink(SOCKET)
                return 0


def ask() -> int:
    for line in sys.stdin:
        try:
            server = socket.socket(socket.AF_UNIX)
            server.connect(SOCKET)
        except OSError:
            print("Cannot find MPS control daemon process")
            return 1
        with server, server.makefile("rw") as stream:
            stream.write(line)
            stream.flush()
            print(stream.readline(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1:] == ["-f"] else ask())
