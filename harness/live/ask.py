"""Asks the cluster service of this node something, from inside its container: `python3 -I -m harness.live.ask
snapshot`.

Prints one JSON object on standard output and ends with 0, or a sentence on standard error and ends with 1. Blocking
and small: it is started for one question.
"""

import json
import socket
import sys

from harness.wire import FrameDecoder, FrameError, encode_frame

__all__ = ["main"]

SERVICE_SOCKET = "/run/blackstart/service.sock"
LIMIT_S = 2.0
CALLS = ("snapshot",)


def main(arguments: list[str]) -> int:
    """Ask one question. Returns the exit code."""
    if len(arguments) != 1 or arguments[0] not in CALLS:
        print(f"usage: ask {'|'.join(CALLS)}", file=sys.stderr)
        return 2
    try:
        answer = _ask(arguments[0])
    except (OSError, FrameError) as error:
        print(f"the cluster service does not answer on {SERVICE_SOCKET}: {error}", file=sys.stderr)
        return 1
    if "error" in answer:
        print(answer["error"], file=sys.stderr)
        return 1
    print(json.dumps(answer["result"]))
    return 0


def _ask(call: str) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(LIMIT_S)
        connection.connect(SERVICE_SOCKET)
        connection.sendall(encode_frame({"id": 1, "call": call}))
        decoder = FrameDecoder()
        while True:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError("it closed the connection")
            for message in decoder.feed(data):
                if message.get("id") == 1:
                    return message


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
