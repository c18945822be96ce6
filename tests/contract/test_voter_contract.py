"""The voter's Lua script and its Python twin give the same answers to the same calls."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import docker
import pytest
from docker.models.containers import Container

from harness.database.acceptor import Acceptor
from harness.database.protocol import (
    CLUSTER_KEY,
    Accept,
    Address,
    Ballot,
    Beat,
    BeatAnswer,
    Call,
    Form,
    Hello,
    Prepare,
    Read,
    Reply,
)
from harness.live.voters import RedisVoters, VoterUnanswered
from harness.rig.images import ensure_images, find_project_root

RIG = "contract"
MEMBERS = {"v1": "i1", "v2": "i2", "v3": "i3"}
OWN = Address(rig=RIG, voter="v1", incarnation="i1", set_version=1)
Ask = Callable[[Call], Reply]


@pytest.fixture(scope="module")
def redis_box() -> Iterator[Container]:
    client = docker.from_env(version="1.41")
    images = ensure_images(client, project_root=find_project_root(), say=lambda _: None)
    box = client.containers.run(
        images.hypervisor.tag,
        entrypoint=["redis-server", "--port", "6379", "--protected-mode", "no", "--appendonly", "yes"],
        command=[],
        detach=True,
        ports={"6379/tcp": ("127.0.0.1", None)},
        labels={"io.blackstart.rig": "contract-test"},
        user="901",
        working_dir="/data",
    )
    try:
        for _ in range(100):
            box.reload()
            ports = box.attrs["NetworkSettings"]["Ports"].get("6379/tcp")
            if ports and b"Ready to accept" in box.logs():
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"redis-server was not ready within 5 s; its log: {box.logs().decode()}")
        yield box
    finally:
        box.remove(force=True, v=True)
        client.close()


@pytest.fixture(scope="module")
def redis_port(redis_box: Container) -> int:
    return int(redis_box.attrs["NetworkSettings"]["Ports"]["6379/tcp"][0]["HostPort"])


@pytest.fixture
def script(redis_port: int) -> Iterator[Ask]:
    """The script on an empty Redis."""
    with asyncio.Runner() as runner:
        voters = RedisVoters({"v1": "127.0.0.1"}, password="", port=redis_port)

        async def ask(call: Call) -> Reply:
            reply, _ = await voters.call("v1", call, limit_us=2_000_000)
            return reply

        async def flush() -> None:
            await voters.call("v1", Hello(rig=RIG, voter="v1"), limit_us=2_000_000)
            connection = voters._voters["v1"]._connection
            await connection.send_command("FLUSHALL")
            await connection.read_response()

        runner.run(flush())
        try:
            yield lambda call: runner.run(ask(call))
        finally:
            runner.run(voters.close())


@pytest.fixture
def twin() -> Ask:
    acceptor = Acceptor()
    return lambda call: acceptor.handle(call, clock_us=0)


def form(ask: Ask) -> Reply:
    return ask(Form(to=OWN, members=MEMBERS))


def comparable(reply: Reply) -> Reply:
    """Without what depends on the clock."""
    if isinstance(reply, BeatAnswer):
        leases = tuple(sorted((replace(lease, age_us=0) for lease in reply.leases), key=lambda one: one.session))
        return replace(reply, leases=leases, changed=tuple(sorted(reply.changed)))
    return reply


def conversation(rng: random.Random) -> list[Call]:
    """Some calls of every kind, most of them addressed rightly."""
    addresses = [OWN] * 8 + [
        replace(OWN, rig="other"),
        replace(OWN, voter="v2"),
        replace(OWN, incarnation="i9"),
        replace(OWN, set_version=2),
    ]

    def ballot() -> Ballot:
        return Ballot(rng.randint(1, 12), rng.choice("abc"))

    def one() -> Call:
        to, key = rng.choice(addresses), rng.choice([CLUSTER_KEY, "group/web"])
        match rng.randrange(6):
            case 0:
                return Hello(rig=to.rig, voter=to.voter)
            case 1 | 2:
                return Prepare(to=to, key=key, ballot=ballot())
            case 3:
                value = f'{{"n": {rng.randint(0, 9)}}}'
                return Accept(to=to, key=key, ballot=ballot(), value=value, promise=ballot())
            case 4:
                return Read(to=to, key=key)
            case _:
                return Beat(to=to, session=rng.choice(["s1", "s2"]), since=rng.randint(0, 5))

    return [one() for _ in range(60)]


pytestmark = pytest.mark.containers


@pytest.mark.parametrize("seed", range(12))
def test_script_and_twin_answer_alike(seed: int, script: Ask, twin: Ask) -> None:
    calls = conversation(random.Random(seed))
    early, late = calls[:5], calls[5:]
    sequence: list[Call] = [*early, Form(to=OWN, members=MEMBERS), *late, Form(to=replace(OWN, incarnation="i9"))]

    answers = [(comparable(script(call)), comparable(twin(call))) for call in sequence]

    for call, (ours, theirs) in zip(sequence, answers, strict=True):
        assert ours == theirs, call


def test_a_connection_that_timed_out_is_closed_and_its_late_answer_never_taken(
    redis_box: Container, redis_port: int
) -> None:
    async def scenario() -> tuple[Reply, int, int]:
        voters = RedisVoters({"v1": "127.0.0.1"}, password="", port=redis_port)
        _, first = await voters.call("v1", Hello(rig=RIG, voter="v1"), limit_us=2_000_000)
        redis_box.pause()
        try:
            with pytest.raises(VoterUnanswered):
                await voters.call("v1", Read(to=OWN, key="late"), limit_us=100_000)
        finally:
            redis_box.unpause()
        reply, second = await voters.call("v1", Hello(rig=RIG, voter="v1"), limit_us=2_000_000)
        await voters.close()
        return reply, first, second

    reply, first, second = asyncio.run(scenario())

    assert type(reply).__name__ == "HelloAnswer"
    assert second > first
