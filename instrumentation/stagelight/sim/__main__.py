"""``python -m stagelight.sim``: the simulator as a process."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from stagelight.sim.models import LATENCIES
from stagelight.sim.simulator import Simulator

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the simulator until it is interrupted or terminated; prints its base URL first."""
    parser = argparse.ArgumentParser(prog="python -m stagelight.sim", description="A deterministic AI provider.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one (default)")
    parser.add_argument("--speed", type=float, default=1.0, help="times faster than a real model (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="ids and chances derive from it (default: 0)")
    parser.add_argument("--latency", choices=LATENCIES, help="one latency for all models (default: each its own)")
    parser.add_argument("--scenario", type=Path, help="YAML file with faults")
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        simulator = Simulator(**vars(options), new_ids=True).start()
    except (ImportError, ValueError) as error:  # a wrong scenario is a ValueError too
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 1
    print(simulator.url, flush=True)
    ended.wait()
    simulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
