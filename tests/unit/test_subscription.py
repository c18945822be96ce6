"""What a voter finds of interest to a node, against a look at everything."""

import random
from dataclasses import dataclass

from harness.database.subscription import Filed, interest_in

CIRCLES = [str(number) for number in range(6)]
OWNERS = ["", "node1", "node2"]


@dataclass
class Register:
    owner: str
    circle: str
    revision: int


def test_what_is_filed_is_found_as_if_everything_were_looked_at() -> None:
    rng = random.Random(1)
    registers: dict[str, Register] = {}
    filed = Filed(registers)
    for revision in range(1, 600):
        key = f"group/web{rng.randrange(40)}"
        circle = registers[key].circle if key in registers else rng.choice(CIRCLES)
        registers[key] = Register(rng.choice(OWNERS), circle, revision)
        filed.accepted(key, registers[key])

        node, circles, since = rng.choice(["node1", "node2"]), rng.sample(CIRCLES, 2), rng.randrange(revision)
        found = filed.since(since, interest_in(node, circles))

        expected = [
            key
            for key, one in sorted(registers.items(), key=lambda item: item[1].revision)
            if one.revision > since and (one.owner == node or one.circle in circles)
        ]
        assert found == expected


def test_filing_may_begin_late() -> None:
    registers = {"group/a": Register("node1", "3", 2), "group/b": Register("", "4", 5), "cluster": Register("", "", 7)}

    filed = Filed(registers)

    assert filed.since(0, interest_in("node1", ["4"])) == ["group/a", "group/b"]
    assert filed.since(4, interest_in("node1", ["4"])) == ["group/b"]
