"""The node API and the command line on one real rig: every verb once from end to end, who gets in and who does not, and
that neither strangers nor floods cost a node its lease.

The tests share the rig and run in the order of this file.
"""

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest
import requests
from conftest import MakeRig
from engine_witness import Witness
from node_faults import SERVICE, VMMS, kill_process

from chaos.arena.docker.cluster_events import follow_events, read_events
from chaos.cli.main import run_command
from harness.errors import HarnessError, RequestRefused
from harness.live.node_api import Limits
from harness.model import labels
from harness.model.object_names import node_container, secrets_volume
from harness.rig.cluster.node_api_client import Address, addresses_of
from harness.rig.cluster.status import GroupStatus, Power
from harness.rig.engine.archive_file import read_file
from harness.rig.engine.exec import run_inside
from harness.rig.lifecycle.rig import Rig, Vm

pytestmark = [pytest.mark.containers, pytest.mark.timeout(200)]

DOCUMENT = "nodes: 3\ngroups: 3\n"
LIMIT_S = 40.0
AT_ONCE_S = 1.0
"""A VM that was started where it may not run must be ended within that."""
FLOOD = 200
BEAT_LIMIT_S = 3.0
"""What an answer may take while strangers do their worst: far less than the lease, and with room for a busy VM."""


@pytest.fixture(scope="module")
def rig(make_rig: MakeRig) -> Iterator[Rig]:
    made = make_rig(DOCUMENT)
    yield made
    made.down(say=print)


@pytest.fixture(autouse=True)
def _settled(rig: Rig) -> None:
    rig.wait_online(limit_s=LIMIT_S, say=print)


def command(rig: Rig, *arguments: str) -> int:
    return run_command([*arguments, "--name", rig.name])


def group(rig: Rig, name: str = "web1") -> GroupStatus:
    return next(found for found in rig.standing().groups if found.name == name)


def bystander(rig: Rig, name: str = "web1") -> str:
    """A node that does not own the group."""
    return next(node.name for node in rig.topology.nodes if node.name != group(rig, name).owner)


def vm(rig: Rig, name: str, node: str) -> Vm:
    return next(found for found in rig.vms() if (found.name, found.node) == (name, node))


def persistent_state(rig: Rig, name: str = "web1") -> tuple[str, int | None]:
    vm = next(resource for resource in group(rig, name).resources if resource.type == "virtual-machine")
    return vm.state, vm.persistent_state


def addresses(rig: Rig) -> dict[str, Address]:
    filters = {"label": [f"{labels.RIG}={rig.name}", f"{labels.ROLE}={labels.Role.NODE}"]}
    return addresses_of(rig.client.api.containers(filters=filters))


def token(rig: Rig) -> str:
    nodes = [node_container(rig.name, node.name) for node in rig.topology.nodes]
    return read_file(rig.client, nodes, "/run/secrets/api-token", limit_bytes=65536)


def ask(rig: Rig, path: str, *, given: str | None, method: str = "GET", node: str = "node1", **more: Any) -> Any:
    address = addresses(rig)[node]
    headers = {**more.pop("headers", {}), **({} if given is None else {"Authorization": f"Bearer {given}"})}
    return requests.request(
        method, f"http://{address.host}:{address.port}/v1/{path}", headers=headers, timeout=10, **more
    )


def _is_closed(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        return link.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def log_events(rig: Rig, since_s: float, name: str) -> list[dict[str, Any]]:
    containers = {node.name: node_container(rig.name, node.name) for node in rig.topology.nodes}
    found, _ = read_events(rig.client, containers, since_ns=int(since_s * 1e9))
    return [dict(record) for record in found if record["event"] == name]


def wait_event(rig: Rig, since_s: float, name: str, word: str) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT_S
    while True:
        for record in log_events(rig, since_s, name):
            if word in record["message"]:
                return record
        assert time.monotonic() < deadline, f"no event {name} about {word} in {LIMIT_S:g} s"
        time.sleep(0.1)


class TestVerbs:
    def test_group_goes_where_it_is_told_and_offline_and_online(
        self, rig: Rig, capfd: pytest.CaptureFixture[str]
    ) -> None:
        target = bystander(rig)
        capfd.readouterr()

        assert command(rig, "group", "move", "web1", "--to", target, "--json") == 0
        told = json.loads(capfd.readouterr().out)
        assert (told["code"], told["now"]["owner"], told["now"]["state"]) == ("done", target, "Online")

        assert command(rig, "group", "offline", "web1") == 0
        assert f"group web1 is Offline on {target}" in capfd.readouterr().out
        assert persistent_state(rig) == ("Offline", 0)
        assert vm(rig, "web1-vm", target).state != "running"

        assert command(rig, "group", "online", "web1") == 0
        assert persistent_state(rig) == ("Online", 1)

    def test_move_without_a_target_finds_one_and_a_foolish_one_is_refused(
        self, rig: Rig, capfd: pytest.CaptureFixture[str]
    ) -> None:
        before = group(rig)

        assert command(rig, "group", "move", "web1") == 0
        assert group(rig).owner != before.owner
        assert command(rig, "group", "move", "web1", "--to", "nowhere") == 2
        assert "expected one of node1, node2, node3" in capfd.readouterr().err

    def test_resource_goes_offline_and_online_alone(self, rig: Rig) -> None:
        assert command(rig, "resource", "offline", "web2-vm") == 0
        assert {entry.name: entry.state for entry in group(rig, "web2").resources} == {
            "web2-ip": "Online",
            "web2-vm": "Offline",
        }
        assert command(rig, "resource", "online", "web2-vm") == 0
        assert persistent_state(rig, "web2") == ("Online", 1)

    def test_failed_resource_is_restarted_in_place(self, rig: Rig) -> None:
        before = group(rig, "web3")
        container = vm(rig, "web3-vm", before.owner).container
        started = rig.client.api.inspect_container(container)["State"]["StartedAt"]

        assert command(rig, "resource", "fail", "web3-vm") == 0

        after = group(rig, "web3")
        assert (after.owner, after.epoch, after.state) == (before.owner, before.epoch, "Online")
        now = vm(rig, "web3-vm", after.owner)
        assert now.state == "running"
        assert rig.client.api.inspect_container(now.container)["State"]["StartedAt"] > started

    def test_paused_node_is_drained_takes_nothing_and_gets_back_what_it_had(self, rig: Rig) -> None:
        node = group(rig).owner

        assert command(rig, "node", "pause", node, "--drain") == 0
        assert node not in {found.owner for found in rig.standing().groups}
        assert command(rig, "wait", "all-online", "--timeout", "20") == 0
        with pytest.raises(RequestRefused, match="Paused"):
            rig.request("groups/web1/move", {"target": node})

        assert command(rig, "node", "resume", node, "--failback", "immediate") == 0
        deadline = time.monotonic() + LIMIT_S
        while group(rig).owner != node:
            assert time.monotonic() < deadline, f"web1 did not come back to {node}: {group(rig)}"
            time.sleep(0.1)

    def test_power_goes_and_comes_back_and_scripts_can_wait_for_both(self, rig: Rig) -> None:
        node = group(rig).owner

        assert command(rig, "node", "power-off", node) == 0
        assert rig.powers()[node] is Power.HELD_OFF
        assert command(rig, "wait", "node-up", node, "--timeout", "0.5") == 1
        assert command(rig, "wait", "group-online", "web1", "--timeout", "30") == 0
        assert command(rig, "group", "offline", "web2") == 0
        assert command(rig, "group", "online", "web2") == 0
        assert command(rig, "node", "power-on", node) == 0

    def test_quorum_is_told(self, rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
        assert command(rig, "quorum", "--json") == 0

        told = json.loads(capfd.readouterr().out)
        assert told["quorum"] is True
        assert told["leases"] == {"node1": True, "node2": True, "node3": True}


class TestVmsBehindTheClustersBack:
    def test_vm_stopped_by_hand_is_not_wanted_any_more_and_started_by_hand_is_again(self, rig: Rig) -> None:
        place = f"{group(rig).owner}/web1-vm"

        assert command(rig, "vm", "stop", place) == 0
        assert persistent_state(rig) == ("Offline", 0)
        assert command(rig, "wait", "all-online") == 0

        assert command(rig, "vm", "start", place) == 0
        assert persistent_state(rig) == ("Online", 1)

    def test_vm_started_where_it_is_not_owned_is_ended_at_once(
        self, rig: Rig, capfd: pytest.CaptureFixture[str]
    ) -> None:
        node, owner = bystander(rig), group(rig).owner
        container = vm(rig, "web1-vm", node).container
        began_s = time.time()
        with contextlib.closing(Witness(rig.client, rig.name)) as witness:
            assert command(rig, "vm", "start", f"{node}/web1-vm") == 1

            since_ns = int(began_s * 1e9)
            started = witness.wait_event(
                "the start", since_ns=since_ns, action="start", vm="web1-vm", node=node
            )
            ended = witness.wait_event("the end", since_ns=since_ns, action="die", vm="web1-vm", node=node)

        assert started.container == container
        assert (ended.at_ns - started.at_ns) / 1e9 < AT_ONCE_S
        assert f"{node} does not own group web1, which belongs to {owner}" in capfd.readouterr().err
        assert wait_event(rig, began_s, "vm-started-by-hand", "web1-vm")["node"] == node
        assert persistent_state(rig) == ("Online", 1)
        assert group(rig).owner == owner

    @pytest.mark.parametrize("place", ["web1-vm", "nowhere/web1-vm", "node1/nosuch"])
    def test_place_that_there_is_not_is_refused_with_those_that_there_are(
        self, rig: Rig, place: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert command(rig, "vm", "stop", place) == 2
        assert "expected" in capfd.readouterr().err


class TestWhoGetsIn:
    @pytest.mark.parametrize("given", [None, "", "wrong", "Bearer"])
    def test_nobody_without_the_token_and_that_is_told(self, rig: Rig, given: str | None) -> None:
        began_s = time.time()

        refused = ask(rig, "groups/web1/offline", method="POST", given=given, json={})

        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert persistent_state(rig) == ("Online", 1)
        assert wait_event(rig, began_s - 12, "api-authentication-failed", "without the rig's token")

    def test_too_large_and_senseless_requests_are_refused_also_with_the_token(self, rig: Rig) -> None:
        given = token(rig)
        json_type = {"Content-Type": "application/json"}

        large = ask(rig, "groups/web1/move", method="POST", given=given, data=b" " * 70000, headers=json_type)
        odd = ask(rig, "groups/web1/move", method="POST", given=given, data=b"{", headers=json_type)
        rebound = ask(rig, "snapshot", given=given, headers={"Host": "evil.example"})

        assert [answer.status_code for answer in (large, odd, rebound)] == [413, 400, 403]

    def test_each_node_answers_on_127_0_0_1_and_names_the_owner(self, rig: Rig) -> None:
        given = token(rig)
        found = addresses(rig)

        assert set(found) == {"node1", "node2", "node3"}
        assert {address.host for address in found.values()} == {"127.0.0.1"}
        for node in found:
            assert ask(rig, "version", given=given, node=node).json()["node"] == node
        other = ask(rig, "groups/web1/online", method="POST", given=given, node=bystander(rig))
        assert (other.status_code, other.json()["owner"]) == (421, group(rig).owner)

    def test_token_is_a_file_for_the_service_alone_and_nowhere_else(self, rig: Rig) -> None:
        secret = token(rig)
        node = node_container(rig.name, "node1")
        api = rig.client.api

        mode = run_inside(rig.client, node, ["stat", "-c", "%u %a", "/run/secrets/api-token"], user="0", limit_s=10)
        seen = {
            "inspect": [
                api.inspect_container(found["Id"])
                for found in api.containers(all=True, filters={"label": f"{labels.RIG}={rig.name}"})
            ],
            "volume": api.inspect_volume(secrets_volume(rig.name)),
            "logs": [
                api.logs(node_container(rig.name, found.name)).decode(errors="replace") for found in rig.topology.nodes
            ],
            "processes": self._processes(rig.client, node),
        }

        assert mode.stdout.split() == ["900", "400"]
        assert len(secret) >= 43
        assert "harness.live.service" in seen["processes"]
        assert "BLACKSTART_NODE=node1" in seen["processes"]
        for place, text in seen.items():
            assert secret not in str(text), place

    @staticmethod
    def _processes(client: docker.DockerClient, node: str) -> str:
        """Command lines of all processes of the node, environments of those whose users have no capability: init, from
        which all have theirs, has what `inspect` shows.
        """
        command = ["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"]
        return "".join(run_inside(client, node, command, user=str(user), limit_s=15).stdout for user in (SERVICE, VMMS))

    def test_vms_reach_no_nodes_api_and_cannot_take_its_port_even_from_a_service_that_dies(self, rig: Rig) -> None:
        owner = group(rig).owner
        inside = vm(rig, "web1-vm", owner).container
        for node in rig.topology.nodes:
            tried = self._in_vm(rig, inside, f"socket.create_connection(({node.address!r}, 7637), 5)")
            assert "ConnectionRefusedError" in tried, f"{node.name}: {tried}"
        taken = "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((HOST, 7637))"

        kill_process(rig, owner, SERVICE)

        for host in ("", "127.0.0.1", next(node.address for node in rig.topology.nodes if node.name == owner)):
            assert "Address already in use" in self._in_vm(rig, inside, taken.replace("HOST", repr(host)))

    @staticmethod
    def _in_vm(rig: Rig, container: str, statement: str) -> str:
        program = f"import socket\ntry:\n    {statement}\n    print('done')\nexcept OSError as e: print(repr(e))"
        user = rig.client.api.inspect_container(container)["Config"]["User"]
        return run_inside(rig.client, container, ["python3", "-c", program], user=user, limit_s=15).stdout


class TestWhatItWithstands:
    def test_strangers_that_send_slowly_on_two_hundred_connections_do_not_cost_the_lease(self, rig: Rig) -> None:
        address = addresses(rig)["node1"]
        before = {node.name: node.session for node in rig.standing().nodes}
        given, began_s, slowest_s = token(rig), time.time(), 0.0
        strangers: list[socket.socket] = []
        try:
            for _ in range(FLOOD):
                strangers.append(socket.create_connection((address.host, address.port), timeout=5))
                strangers[-1].sendall(b"POST /v1/groups/web1/offline HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            # Whoever comes while they are still being taken up may be closed for one of them: they are let in for all.
            there = strangers
            while len(there := [stranger for stranger in there if not _is_closed(stranger)]) > Limits().connections:
                assert time.time() < began_s + LIMIT_S, "not all strangers were taken up"
                select.select(there, [], [], 0.05)
            while time.time() < began_s + 4:
                for stranger in strangers:
                    with contextlib.suppress(OSError):  # it was closed for a newer one
                        stranger.sendall(b"x")
                asked = time.monotonic()
                assert ask(rig, "snapshot", given=given).status_code == 200
                slowest_s = max(slowest_s, time.monotonic() - asked)
        finally:
            for stranger in strangers:
                stranger.close()

        assert slowest_s < BEAT_LIMIT_S
        assert {node.name: node.session for node in rig.standing().nodes} == before
        assert log_events(rig, began_s - 0.1, "lease-lapsed") == []

    def test_request_finds_its_way_past_a_node_that_is_off_and_names_them_when_all_are(self, rig: Rig) -> None:
        node = bystander(rig)
        rig.power_off(node)

        assert rig.request("groups/web1/online").code == "done"

        for other in rig.topology.nodes:
            rig.power_off(other.name)
        with pytest.raises(HarnessError, match=r"node1: is held off; node2: is held off; node3: is held off"):
            rig.request("groups/web1/online")
        for other in rig.topology.nodes:
            rig.power_on(other.name)


class TestLogs:
    def test_events_of_all_nodes_come_in_order_and_are_followed_across_a_restart(
        self, rig: Rig, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert command(rig, "events", "--json") == 0
        told = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        assert {record["node"] for record in told} == {"node1", "node2", "node3"}
        assert [record["time"] for record in told] == sorted(record["time"] for record in told)

        node = bystander(rig)
        containers = {found.name: node_container(rig.name, found.name) for found in rig.topology.nodes}
        _, last = read_events(rig.client, containers, since_ns=time.time_ns())
        following = follow_events(rig.client, containers, since_ns=last, clock=time.monotonic)
        with contextlib.closing(following):
            next(following)
            rig.power_off(node, hold=False)
            deadline = time.monotonic() + LIMIT_S
            for record in following:
                assert time.monotonic() < deadline, f"{node} has not told of its start"
                if record is not None and (record["node"], record["event"]) == (node, "node-boots"):
                    break

    def test_logs_of_nodes_and_vms_are_found_by_name(self, rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
        owner = group(rig).owner

        assert command(rig, "logs", "node1", "--tail", "3") == 0
        assert len(capfd.readouterr().out.splitlines()) == 3
        for target in ("web1-vm", f"{owner}/web1-vm"):
            assert command(rig, "logs", target) == 0
            assert "VM web1-vm started" in capfd.readouterr().out
        assert command(rig, "logs", "nosuch") == 2
        assert "or one of the nodes node1, node2, node3" in capfd.readouterr().err

    def test_a_vms_log_is_followed_to_the_node_to_which_it_moves(self, rig: Rig) -> None:
        source = "import sys; from chaos.cli.main import main; sys.exit(main())"
        logs = [sys.executable, "-c", source, "logs", "web1-vm", "--follow", "--tail", "1", "--name", rig.name]
        with subprocess.Popen(logs, stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            assert following.stdout.readline(), "it has not begun to follow"
            assert command(rig, "group", "move", "web1", "--to", bystander(rig)) == 0
            assert any("VM web1-vm started" in line for line in following.stdout)
            following.send_signal(signal.SIGINT)
        assert following.returncode == 130
