"""The server as ``ServerProcess`` starts it: options from the first line of stdin, addresses or an error to stdout."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from stagelight.embedded.background import options_from_json
from stagelight.embedded.options import Addresses, InvalidOptions, PortInUse
from stagelight.embedded.server import run
from stagelight.embedded.store import StoreError


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _listens(addresses: Addresses) -> None:
    _tell(
        {
            "host": addresses.host,
            "http_port": addresses.http_port,
            "grpc_port": addresses.grpc_port,
            "database": str(addresses.database),
        }
    )


def _end_with_parent() -> None:
    while os.read(0, 4096):  # empty when the other end of the pipe is gone; stdin's own lock could block the exit
        pass
    while True:  # a signal that comes before the server listens for it is lost
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)


def _main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # while serving they stop it; a late one must not spoil an orderly end
    options = options_from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        return run(options, _listens)
    except PortInUse as error:
        _tell({"error": {"host": error.host, "port": error.port, "protocol": error.protocol}})
    except (InvalidOptions, StoreError) as error:
        _tell({"error": {"kind": type(error).__name__, "message": str(error)}})
    return 1


if __name__ == "__main__":
    sys.exit(_main())
