"""Stands in for the door: lets every byte through, and says that it is ready as the door does. No tests."""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time


def relay(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("federation", "out", "superlink", "superlink-ca", "listen", "status"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    listening = socket.create_server((host, int(port)))

    def watch() -> None:
        while os.getppid() == arguments.parent_pid:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    print(f"door ready: owners {host}:{listening.getsockname()[1]}, status {arguments.status}", flush=True)
    superlink_host, _, superlink_port = arguments.superlink.rpartition(":")
    while True:
        owner, _ = listening.accept()
        superlink = socket.create_connection((superlink_host, int(superlink_port)))
        for pair in ((owner, superlink), (superlink, owner)):
            threading.Thread(target=relay, args=pair, daemon=True).start()


if __name__ == "__main__":
    main()
