"""The client outside: asks every VM again and again and tells what changed. Runs inside the client's container.

    python3 -I -c SOURCE web-vm=guest://10.87.0.100:8080/ db-vm=tcp://10.87.0.101:5432 app-vm=http://10.87.0.102:8000/health

One thread a VM, a question every 50 ms, 300 ms for the whole exchange, a new connection each time: it is the
client's own ARP entry that decides whether a moved address is reached. The question is a GET, which the guest answers
with its boot and node, and another program with a status below 400; or no more than the connection. Prints one JSON
line when a VM begins to answer, stops answering, or another boot or node answers; and each second how often it
asked and how often it was answered. Standard library only: its source travels as an argument, and nothing of the
project is installed where it runs.
"""

import json
import socket
import sys
import threading
import time

INTERVAL_S = 0.05
LIMIT_S = 0.3
BEAT_S = 1.0
MAX_ANSWER = 65536
MAX_NAME = 64


class Tally:
    """What all threads together have asked since the last beat, and the one output that they share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._answered = 0

    def count(self, answered: bool) -> None:
        """One question was asked."""
        with self._lock:
            self._asked += 1
            self._answered += answered

    def tell(self, line: dict[str, object]) -> None:
        """One line, whole."""
        text = json.dumps(line) + "\n"
        with self._lock:
            sys.stdout.write(text)
            sys.stdout.flush()

    def beat(self) -> None:
        """The line of this second."""
        with self._lock:
            asked, answered, self._asked, self._answered = self._asked, self._answered, 0, 0
        self.tell({"at_ns": time.time_ns(), "asked": asked, "answered": answered})


def ask(where: str) -> dict[str, object]:
    """One exchange: that it answered, of the guest's program also its boot and node, or the error.

    The limit is for all of it, however slowly the bytes come.
    """
    kind, _, rest = where.partition("://")
    place, slash, path = rest.partition("/")
    address, _, port = place.partition(":")
    ends = time.monotonic() + LIMIT_S
    try:
        with socket.create_connection((address, int(port)), timeout=LIMIT_S) as connection:
            if kind == "tcp":
                return {"ok": True}
            question = f"GET {slash}{path} HTTP/1.1\r\nHost: VM\r\nConnection: close\r\n\r\n"
            connection.sendall(question.encode())
            data = b""
            while len(data) < MAX_ANSWER:
                connection.settimeout(max(0.001, ends - time.monotonic()))
                part = connection.recv(MAX_ANSWER)
                if not part:
                    break
                data += part
        head, _, body = data.partition(b"\r\n\r\n")
        status = head.split(b"\r\n", 1)[0].split()
        if len(status) < 2 or not 200 <= int(status[1]) < 400:
            return {"ok": False, "error": "not a good answer"}
        if kind == "http":
            return {"ok": True}
        said = json.loads(body)
        return {"ok": True, "boot": visible(said["boot"]), "node": visible(said["node"])}
    except TimeoutError:
        return {"ok": False, "error": "no answer in time"}
    except OSError as error:
        return {"ok": False, "error": error.strerror or str(error)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"ok": False, "error": "not a good answer"}


def visible(text: object) -> str:
    """A name that a VM gave, cut, with an escape for each character that is not for showing."""
    name = str(text)[:MAX_NAME]
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in name)


def watch(vm: str, where: str, tally: Tally) -> None:
    """Ask for ever; tell what changed. Why a VM is silent changes too often to be told each time."""
    last: object = None
    while True:
        began = time.monotonic()
        answer = ask(where)
        tally.count(bool(answer["ok"]))
        now = (answer["ok"], answer.get("boot"), answer.get("node"))
        if now != last:
            tally.tell({"at_ns": time.time_ns(), "vm": vm, **answer})
            last = now
        time.sleep(max(0.0, began + INTERVAL_S - time.monotonic()))


def main() -> None:
    """One thread a VM, and the beat."""
    tally = Tally()
    for argument in sys.argv[1:]:
        vm, _, where = argument.partition("=")
        threading.Thread(target=watch, args=(vm, where, tally), daemon=True).start()
    while True:
        time.sleep(BEAT_S)
        tally.beat()


if __name__ == "__main__":
    main()
