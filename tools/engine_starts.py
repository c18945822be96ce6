"""Prints how long this host's engine takes for many creations and starts at once: what the simulated engine goes by.

`python tools/engine_starts.py`, after `make images`: two minutes. Containers that only sleep, in the namespaces of one
that stands for a node; each figure is the median of three rounds. Everything is removed again, also when it is
interrupted.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import docker

from harness.model import labels
from harness.rig.lifecycle.teardown import remove_rig

IMAGE = "blackstart/guest"
RIG = "measured-starts"
LABELS = {labels.RIG: RIG, labels.ROLE: str(labels.Role.CLIENT)}
COUNTS = (1, 2, 4, 8, 16, 32, 64, 125)
IN_FLIGHT = 8
ROUNDS = 3
SLEEP = ["sleep", "600"]


def measure(count: int) -> tuple[float, float]:
    """Seconds until so many containers were made, and until all of them ran, with `IN_FLIGHT` calls at a time."""
    clients = [docker.APIClient(timeout=120) for _ in range(min(count, IN_FLIGHT))]
    with ThreadPoolExecutor(len(clients)) as pool:

        def timed(work: Callable[[docker.APIClient, str], str], what: Sequence[str]) -> tuple[float, list[str]]:
            began = time.perf_counter()
            done = list(pool.map(lambda pair: work(clients[pair[0] % len(clients)], pair[1]), enumerate(what)))
            return time.perf_counter() - began, done

        node = _create(clients[0], "")
        clients[0].start(node)
        try:
            creation_s, made = timed(_create, [node] * count)
            start_s, _ = timed(_start, made)
        finally:
            _remove_all()
    for client in clients:
        client.close()
    return creation_s, start_s


def _create(client: docker.APIClient, node: str) -> str:
    spaces = {"network_mode": f"container:{node}", "pid_mode": f"container:{node}"} if node else {}
    made = client.create_container(
        IMAGE, SLEEP[1:], entrypoint=SLEEP[:1], labels=LABELS, host_config=client.create_host_config(**spaces)
    )
    return str(made["Id"])


def _start(client: docker.APIClient, container: str) -> str:
    client.start(container)
    return container


def _remove_all() -> None:
    with contextlib.closing(docker.from_env(timeout=120)) as client:
        remove_rig(client, RIG, say=lambda _: None)


def main() -> int:
    """Print the table."""
    sys.stdout.write("| At once | Created, s | Run, s | Each, ms |\n|---|---|---|---|\n")
    for count in COUNTS:
        rounds = [measure(count) for _ in range(ROUNDS)]
        creation_s, start_s = (statistics.median(times) for times in zip(*rounds, strict=True))
        sys.stdout.write(f"| {count} | {creation_s:.2f} | {start_s:.2f} | {1000 * start_s / count:.0f} |\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
