"""Asks the engine whether it answers, through the socket of the node's own processes. Runs in the node's container.

    python3 -I -c SOURCE SOCKET

Prints one JSON object: whether there was an answer within the limit.
"""

import json
import socket
import sys

LIMIT_S = 1.0
"""A ping of the engine takes a millisecond; a loaded host was seen to need a tenth of a second."""


def main() -> int:
    """0, whatever was answered."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(LIMIT_S)
        try:
            link.connect(sys.argv[1])
            link.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
            answers, seen = link.recv(64).startswith(b"HTTP/1.1 200"), ""
        except OSError as error:
            answers, seen = False, str(error)
    print(json.dumps({"answers": answers, "seen": seen}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
