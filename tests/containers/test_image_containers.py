"""The two images on a real engine: PID 1 as watchdog and keeper, the wall between node and guests, the guest itself.

The node's own programs are replaced by stubs, so that only the images are tested.
"""

import hashlib
import io
import itertools
import json
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import docker
import docker.errors
import pytest
from docker.models.containers import Container

from harness.rig.images.build import Images, ensure_images, find_project_root

pytestmark = pytest.mark.containers

NODE_CAPABILITIES = ["SETUID", "SETGID", "SETPCAP", "CHOWN", "KILL", "NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"]
GUEST_UID = 10001
PASSWORD = "sesame"

# Pets for as long as a file says how far ahead: seconds until the guests' and the node's end.
STUB_SERVICE = """
import os, struct, sys, time
while True:
    try:
        ahead = [float(number) for number in open("/run/blackstart/pets").read().split()]
    except OSError:
        ahead = []
    if len(ahead) == 2:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        os.write(int(sys.argv[1]), struct.pack("<qq", *(now + int(number * 1e9) for number in ahead)))
    time.sleep(0.02)
"""
STUB = {"name": "service", "argv": ["python3", "-I", "/trial/service.py", "{pet_fd}"], "uid": 900, "pets": True}
VOTER = {
    "name": "voter",
    "argv": ["redis-server", "/etc/blackstart/voter.conf", "--aclfile", "/run/secrets/voter-node1.acl"],
    "uid": 901,
    "groups": [],
    "capabilities": ["net_bind_service"],
    "output_is_text": True,
}


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def images(client: docker.DockerClient) -> Images:
    return ensure_images(client, project_root=find_project_root(), say=lambda _: None)


class Bench:
    """Containers of one test, all under a rig of their own, all removed at its end."""

    def __init__(self, client: docker.DockerClient, images: Images) -> None:
        self._client = client
        self._images = images
        self.rig = f"test-images-{uuid.uuid4().hex[:8]}"

    def node(self, *programs: dict[str, object], pets: str = "", boot_grace_s: float = 30) -> Container:
        """A node that runs these programs, its stub service petting as `pets` says."""
        node = self._client.containers.create(
            self._images.hypervisor.tag,
            command=["/trial/programs.json"],
            environment={"BLACKSTART_NODE": "node1"},
            cap_drop=["ALL"],
            cap_add=NODE_CAPABILITIES,
            sysctls={"net.ipv4.ip_unprivileged_port_start": 1024},
            labels={"io.blackstart.rig": self.rig, "io.blackstart.role": "node"},
        )
        document = {"boot_grace_s": boot_grace_s, "programs": programs or [STUB]}
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        acl = f"user default off\nuser service on #{digest} ~* &* +@all\n"
        put(node, "/trial/programs.json", json.dumps(document))
        put(node, "/trial/service.py", STUB_SERVICE)
        put(node, "/run/secrets/voter-node1.acl", acl, uid=901, mode=0o400)
        if pets:
            put(node, "/run/blackstart/pets", pets, uid=900)
        node.start()
        wait_until(lambda: "voter-port" in events(node), "init's first lines", limit_s=10)
        return node

    def guest(self, node: Container, **options: object) -> Container:
        """A VM inside the node, with exactly what the cluster forces on one."""
        settings: dict[str, object] = {
            "environment": {"BLACKSTART_VM": "m1", "BLACKSTART_NODE": "node1", "BLACKSTART_ADDRESS": "127.0.0.2"},
            "tmpfs": {"/disk": "size=1m,mode=1777"},
            **options,
        }
        return self._client.containers.run(
            self._images.guest.tag,
            detach=True,
            user=f"{GUEST_UID}:{GUEST_UID}",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            read_only=True,
            pid_mode=f"container:{node.id}",
            network_mode=f"container:{node.id}",
            labels={"io.blackstart.rig": self.rig, "io.blackstart.role": "vm"},
            **settings,
        )

    def disk(self) -> str:
        """The name of a new volume for one VM."""
        return str(self._client.volumes.create(f"{self.rig}-disk", labels={"io.blackstart.rig": self.rig}).name)

    def clean_up(self) -> None:
        """Guests before nodes: a frozen guest keeps its node from dying."""
        listed = self._client.containers.list(all=True, filters={"label": f"io.blackstart.rig={self.rig}"})
        for container in sorted(listed, key=lambda one: one.labels["io.blackstart.role"]):
            container.remove(force=True, v=True)
        for volume in self._client.volumes.list(filters={"label": f"io.blackstart.rig={self.rig}"}):
            volume.remove()


@pytest.fixture
def bench(client: docker.DockerClient, images: Images) -> Iterator[Bench]:
    bench = Bench(client, images)
    yield bench
    bench.clean_up()


def put(container: Container, path: str, text: str, *, uid: int = 0, mode: int = 0o644) -> None:
    """Put a file into a container that need not run."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.uid, entry.gid, entry.mode = len(text.encode()), uid, uid, mode
        archive.addfile(entry, io.BytesIO(text.encode()))
    assert container.put_archive("/", packed.getvalue())


def wait_until(condition: Callable[[], object], what: str, *, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(0.02)


def execute(container: Container, *command: str, user: str = "900") -> str:
    """Run a command inside; as an identity of the node, which PID 1 does not take for a guest."""
    return str(container.exec_run(list(command), user=user).output.decode())


def records(node: Container) -> list[dict[str, Any]]:
    """The node's log; a line that is no JSON fails the test."""
    return [json.loads(line) for line in node.logs().splitlines()]


def events(node: Container) -> str:
    return " ".join(str(record["event"]) for record in records(node))


def fields_of(node: Container, event: str) -> list[dict[str, object]]:
    return [dict(record["fields"]) for record in records(node) if record["event"] == event]


def kill_service(node: Container) -> None:
    """SIGKILL to the stub that started last."""
    pid = fields_of(node, "program-started")[-1]["pid"]
    assert execute(node, "sh", "-c", f"kill -9 {pid}") == ""


def running(container: Container) -> bool:
    container.reload()
    return bool(container.status == "running")


def state(container: Container) -> dict[str, object]:
    container.reload()
    return dict(container.attrs["State"])


def about(node: Container) -> dict[str, object]:
    """What the VM answers over HTTP, or nothing while it does not."""
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.2:8080/', timeout=1).read().decode())"
    answer = execute(node, "python3", "-c", script)
    return dict(json.loads(answer)) if answer.startswith("{") else {}


def test_images_that_are_current_are_recognised_at_once(client: docker.DockerClient, images: Images) -> None:
    said: list[str] = []
    started = time.monotonic()

    again = ensure_images(client, project_root=find_project_root(), say=said.append)

    assert again == images
    assert said == []
    assert time.monotonic() - started < 5


def test_guests_die_at_the_first_deadline_and_the_node_ends_at_the_second(bench: Bench) -> None:
    node = bench.node(pets="1.0 2.5")
    guest = bench.guest(node)
    wait_until(lambda: about(node).get("count"), "the VM to answer", limit_s=5)

    execute(node, "rm", "/run/blackstart/pets")
    wait_until(lambda: not running(guest), "the guest's end", limit_s=2)
    node_outlived_guest = running(node)
    wait_until(lambda: not running(node), "the node's end", limit_s=4)

    assert node_outlived_guest
    assert state(guest)["ExitCode"] == 137
    assert state(node)["ExitCode"] == 87
    assert "guests-withdrawn guests-none" in events(node)
    assert events(node).endswith("node-ends")


def test_thawed_node_kills_its_guests_before_it_believes_the_service(bench: Bench) -> None:
    node = bench.node(pets="0.6 20")
    guest = bench.guest(node)
    wait_until(lambda: about(node).get("count"), "the VM to answer", limit_s=5)

    guest.pause()
    node.pause()
    time.sleep(1)  # past the first deadline, and the freeze is the thing under test
    node.unpause()
    wait_until(lambda: events(node).count("guests-withdrawn") == 1, "the permit's end", limit_s=2)
    guest.unpause()
    wait_until(lambda: not running(guest), "the guest's end", limit_s=2)
    wait_until(lambda: events(node).endswith("guests-granted"), "the new permit", limit_s=2)

    assert running(node)


def test_node_that_thaws_after_its_deadline_ends_although_the_service_pets_again(bench: Bench) -> None:
    node = bench.node(pets="0.3 0.6")
    wait_until(lambda: "guests-granted" in events(node), "the first pet", limit_s=5)

    node.pause()
    time.sleep(1)  # past both deadlines
    node.unpause()
    wait_until(lambda: not running(node), "the node's end", limit_s=2)

    assert state(node)["ExitCode"] == 87


def test_killed_service_is_back_at_once_with_the_pipe_and_without_new_grace(bench: Bench) -> None:
    node = bench.node(pets="2 4")
    wait_until(lambda: "guests-granted" in events(node), "the first pet", limit_s=5)
    time.sleep(1.1)  # a life of a second earns an immediate restart

    kill_service(node)
    wait_until(lambda: "program-ended" in events(node), "the death", limit_s=2)
    wait_until(lambda: len(fields_of(node, "program-started")) == 2, "the restart", limit_s=2)
    time.sleep(0.2)
    execute(node, "rm", "/run/blackstart/pets")
    kill_service(node)
    wait_until(lambda: not running(node), "the end of a node whose service says nothing", limit_s=4)

    assert [fields["again_in_s"] for fields in fields_of(node, "program-ended")] == [0, 0.2]
    assert state(node)["ExitCode"] == 87


def test_stop_ends_the_node_with_status_0(bench: Bench) -> None:
    node = bench.node(pets="2 4")

    node.stop(timeout=5)

    assert state(node)["ExitCode"] == 0
    assert events(node).endswith("node-stops")


def test_voter_serves_the_service_and_refuses_everybody_else(bench: Bench) -> None:
    node = bench.node(STUB, VOTER, pets="5 9")
    ping = ("redis-cli", "-p", "637", "--no-auth-warning", "--user", "service", "--pass", PASSWORD, "ping")
    wait_until(lambda: "PONG" in execute(node, *ping), "the voter", limit_s=5)
    connect = "import socket; socket.create_connection(('127.0.0.1', 637), timeout=1)"
    take = "import socket; socket.create_server(('0.0.0.0', 637))"

    refused = {
        user: execute(node, "python3", "-c", script, user=user).strip().splitlines()[-1]
        for user, script in ((str(GUEST_UID), connect), ("902", connect), ("0", connect), ("10002", take))
    }
    settings = execute(node, *ping[:-1], "config", "get", "*").splitlines()
    setting = dict(zip(settings[::2], settings[1::2], strict=True))

    assert "Connection refused" in refused[str(GUEST_UID)]
    assert "Connection refused" in refused["902"]
    assert "Connection refused" in refused["0"]
    assert "Permission denied" in refused["10002"]
    assert "NOAUTH" in execute(node, "redis-cli", "-p", "637", "ping")
    wanted = {"appendonly": "yes", "appendfsync": "always", "aof-load-truncated": "no", "save": ""}
    assert {name: setting[name] for name in wanted} == wanted
    assert setting["maxmemory-policy"] == "noeviction"


def test_every_process_has_its_identity_and_no_other_capability(bench: Bench) -> None:
    show = {"argv": ["cat", "/proc/self/status"], "output_is_text": True}
    node = bench.node(
        STUB,
        {"name": "plain", "uid": 902, **show},
        {"name": "network", "uid": 903, "capabilities": ["net_admin", "net_raw"], **show},
        pets="5 9",
    )
    wait_until(lambda: events(node).count("program-ended") >= 2, "both to end", limit_s=5)
    init = execute(node, "cat", "/proc/1/status")

    said = {name: [r["message"] for r in records(node) if r["component"] == name] for name in ("plain", "network")}
    assert "CapBnd:\t0000000000000000" in said["plain"]
    assert "CapEff:\t0000000000000000" in said["plain"]
    assert "CapBnd:\t0000000000003000" in said["network"]
    assert "CapEff:\t0000000000003000" in said["network"]
    assert "Uid:\t899\t899\t899\t899" in init
    assert "NoNewPrivs:\t1" in init


def test_guest_cannot_signal_the_node(bench: Bench) -> None:
    node = bench.node(pets="5 9")
    guest = bench.guest(node)
    attack = "import os\nfor pid in (int(p) for p in os.listdir('/proc') if p.isdigit()):\n" + (
        "  if os.stat(f'/proc/{pid}').st_uid != os.getuid():\n"
        "    try: os.kill(pid, 15); print('hit', pid)\n"
        "    except PermissionError: print('refused')\n"
    )

    done = execute(guest, "python3", "-c", attack, user=str(GUEST_UID))

    assert "hit" not in done
    assert done.count("refused") >= 2
    assert running(node)


def test_guest_ends_its_journal_when_it_is_stopped(bench: Bench) -> None:
    node = bench.node(pets="9 9")
    guest = bench.guest(node, tmpfs={}, volumes={bench.disk(): {"bind": "/disk"}})
    wait_until(lambda: about(node).get("count"), "the VM to answer", limit_s=5)
    started = time.monotonic()

    guest.stop(timeout=5)
    took_s = time.monotonic() - started

    packed, _ = guest.get_archive("/disk/journal.jsonl")
    with tarfile.open(fileobj=io.BytesIO(b"".join(packed))) as archive:
        content = archive.extractfile("journal.jsonl")
        assert content is not None
        lines = [json.loads(line) for line in content.read().splitlines()]
    assert state(guest)["ExitCode"] == 0
    assert took_s < 1
    assert lines[-1]["stop"] is True
    assert [line["count"] for line in lines] == list(range(1, len(lines) + 1))
    assert set(lines[0]) == {"vm", "boot", "node", "count", "at", "boottime"}


def test_guest_outlives_a_full_disk_and_a_freeze(bench: Bench) -> None:
    node = bench.node(pets="30 30")
    guest = bench.guest(node)
    wait_until(lambda: about(node).get("count"), "the VM to answer", limit_s=5)

    execute(guest, "dd", "if=/dev/zero", "of=/disk/ballast", "bs=64k", user=str(GUEST_UID))
    wait_until(lambda: about(node).get("disk") == "full", "the full disk", limit_s=5)
    execute(guest, "rm", "/disk/ballast", user=str(GUEST_UID))
    wait_until(lambda: about(node).get("disk") == "ok", "the disk to have room", limit_s=5)
    guest.pause()
    time.sleep(1)  # the freeze is the thing under test
    guest.unpause()
    last = about(node)["count"]
    wait_until(lambda: int(str(about(node)["count"])) > int(str(last)) + 3, "lines after the thaw", limit_s=5)

    lines = execute(guest, "cat", "/disk/journal.jsonl", user=str(GUEST_UID)).splitlines()
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    times = [int(str(line["boottime"])) for line in whole]
    gaps_ms = [(after - before) / 1e6 for before, after in itertools.pairwise(times)]
    assert [line["count"] for line in whole] == list(range(1, len(whole) + 1))
    assert max(gaps_ms) >= 900
    assert sum(gap < 10 for gap in gaps_ms) <= 2, f"caught up after a gap: {gaps_ms}"
