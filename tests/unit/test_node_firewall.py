"""A node's firewall rules for guests: which there are, and what happens where the kernel refuses some."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

HYPERVISOR = Path(__file__).parents[2] / "images" / "hypervisor"
sys.path.insert(0, str(HYPERVISOR))  # in the image these modules are found beside init.py

firewall: Any = importlib.import_module("node_firewall")

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\tE000570A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000570A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ENVIRONMENT = {"BLACKSTART_GUEST_SUBNET": "10.87.0.0/24", "BLACKSTART_GUEST_USERS": "10001,12000"}

FAKE_TOOL = """\
#!/bin/sh
cat > "$RULES.new"
if [ -n "$REFUSED" ] && grep -q -e "$REFUSED" "$RULES.new"; then echo "no such match" >&2; exit 2; fi
cat "$RULES.new" >> "$RULES"
"""


def parts(**environment: str) -> dict[str, Any]:
    found = firewall.parts_of(environment, gateway="10.87.0.224")
    return {part.event: part for part in found}


def set_with(tmp_path: Path, *, refused: str = "", tool: str = "iptables-nft-restore") -> tuple[list[Any], str]:
    """The logs of setting all rules with a fake tool, and the rules that it was given and took."""
    script = tmp_path / tool
    script.write_text(FAKE_TOOL)
    script.chmod(0o755)
    rules = tmp_path / "rules"
    rules.touch()
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**ENVIRONMENT, "PATH": path, "RULES": str(rules), "REFUSED": refused}
    wanted = firewall.parts_of(ENVIRONMENT, gateway="10.87.0.224")
    old, os.environ["PATH"] = os.environ["PATH"], path
    try:
        return firewall.close_to_guests(environment, wanted), rules.read_text()
    finally:
        os.environ["PATH"] = old


def test_gateway_is_read_from_the_default_route() -> None:
    assert firewall.gateway_of(ROUTES) == "10.87.0.224"
    assert firewall.gateway_of("Iface\n") is None


def test_guests_reach_the_network_without_the_engines_vm() -> None:
    rules = parts(**ENVIRONMENT)["guest-network"].rules

    verdicts = [rule.removeprefix("-A GUEST-NETWORK ") for rule in rules if rule.startswith("-A GUEST-NETWORK")]
    assert verdicts == [
        "-d 127.0.0.11 -j REJECT",
        "-o lo -j RETURN",
        "-d 10.87.0.224 -j REJECT",
        "-d 10.87.0.0/24 -j RETURN",
        "-j REJECT",
    ]


def test_open_network_has_no_rule_for_it() -> None:
    assert "guest-network" not in parts(BLACKSTART_GUEST_USERS="10001")


def test_each_guest_has_limits_of_its_own() -> None:
    rules = parts(**ENVIRONMENT)["guest-flows"].rules

    for user in ("10001", "12000"):
        mine = [rule for rule in rules if f"--uid-owner {user} " in rule]
        assert len(mine) == 2
        assert f"--hashlimit-name guest-{user} " in mine[0]
        assert "connlimit" in mine[1]


def test_all_rules_are_set_at_once(tmp_path: Path) -> None:
    logs, rules = set_with(tmp_path)

    assert [log.event for log in logs] == [
        *("voter-port-closed", "api-port-closed", "guest-network-closed", "guest-flows-closed"),
    ]
    assert rules.count("COMMIT") == 1


def test_kernel_without_a_match_still_gets_the_other_rules(tmp_path: Path) -> None:
    logs, rules = set_with(tmp_path, refused="hashlimit")

    assert [log.event for log in logs] == [
        *("voter-port-closed", "api-port-closed", "guest-network-closed", "guest-flows-open"),
    ]
    assert "no such match" in str(logs[-1].fields["refusals"])
    assert "hashlimit" not in rules


@pytest.mark.parametrize("tool", ["iptables-legacy-restore", "iptables-nft-restore"])
def test_either_tool_will_do(tmp_path: Path, tool: str) -> None:
    if tool == "iptables-legacy-restore":
        (tmp_path / "iptables-nft-restore").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "iptables-nft-restore").chmod(0o755)

    logs, _ = set_with(tmp_path, tool=tool)

    assert {log.fields["tool"] for log in logs} == {tool.removesuffix("-restore")}
