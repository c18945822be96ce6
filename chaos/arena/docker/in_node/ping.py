"""Asks nodes whether a packet gets through to them: one ICMP echo each. Runs in another node's container, as root.

    python3 -I -c SOURCE ADDRESS...

ICMP, because the kernel answers it whatever the node's processes do, and no rule of a healthy node is about it. Prints
one JSON object: for each address whether it answered.
"""

import json
import os
import select
import socket
import struct
import sys
import time

LIMIT_S = 0.4
"""An answer within one host takes under a millisecond; a loaded one was seen to need a tenth of a second."""
ECHO_REQUEST, ECHO_REPLY = 8, 0


def checksum(data: bytes) -> int:
    """The internet checksum of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return int(~(total + (total >> 16)) & 0xFFFF)


def echo(number: int) -> bytes:
    """An echo request of this process."""
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, os.getpid() & 0xFFFF, number)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(head), os.getpid() & 0xFFFF, number)


def main() -> int:
    """0, whatever was answered."""
    addresses = sys.argv[1:]
    answered = dict.fromkeys(addresses, False)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        for number, address in enumerate(addresses):
            try:
                link.sendto(echo(number), (address, 0))
            except OSError:
                continue  # a rule of this very node forbids it, which is no answer either
        ends = time.monotonic() + LIMIT_S
        while not all(answered.values()) and (left := ends - time.monotonic()) > 0:
            if not select.select([link], [], [], left)[0]:
                break
            packet = link.recv(2048)
            head = (packet[0] & 15) * 4
            kind, _, _, process, number = struct.unpack("!BBHHH", packet[head : head + 8])
            if kind == ECHO_REPLY and process == os.getpid() & 0xFFFF and number < len(addresses):
                answered[addresses[number]] = True
    print(json.dumps(answered))
    return 0


if __name__ == "__main__":
    sys.exit(main())
