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
    Accept,
    Address,
    Admit,
    Ballot,
    Beat,
    BeatAnswer,
    Call,
    Form,
    Hello,
    KeysAnswer,
    ListKeys,
    Prepare,
    Raise,
    Read,
    ReadMany,
    RefusalReason,
    Refused,
    Reply,
    Retire,
)
from harness.database.subscription import EVERYTHING, NOTHING, interest_in
from harness.live.voters import RedisVoters, VoterUnanswered, voter_connection
from harness.model.register_keys import CLUSTER_KEY
from harness.model.shard import UNSHARDED
from harness.rig.cluster.secret_files import access_list
from harness.rig.images.build import ensure_images, find_project_root

RIG = "contract"
MEMBERS = {"v1": "i1", "v2": "i2", "v3": "i3"}
OWN = Address(rig=RIG, voter="v1", incarnation="i1", set_version=1)
Ask = Callable[[Call], Reply]


@pytest.fixture(scope="module")
def redis_box() -> Iterator[Container]:
    client = docker.from_env()
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
            connection = voter_connection("v1", "127.0.0.1", port=redis_port, password="")
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("FLUSHALL")
            await connection.read_response()
            await connection.disconnect(nowait=True)

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
        just_now = {lease.session for lease in reply.leases if 0 <= reply.clock_us - lease.at_us < 60_000_000}
        assert just_now == {lease.session for lease in reply.leases}
        leases = tuple(sorted((lease._replace(at_us=0) for lease in reply.leases), key=lambda one: one.session))
        return reply._replace(leases=leases, clock_us=0)
    if isinstance(reply, KeysAnswer):
        return replace(reply, keys=tuple(sorted(reply.keys)))
    return reply


CIRCLES = {CLUSTER_KEY: "", "group/web": "7", "group/db": "12", "group/named": UNSHARDED}
INTERESTS = [
    EVERYTHING,
    EVERYTHING,
    NOTHING,
    interest_in("node1", ()),
    interest_in("node2", ("7",)),
    interest_in("node1", ("1", "12", UNSHARDED)),
]
SETS = {1: MEMBERS, 2: {"v1": "i1", "v2": "i2"}, 3: {"v2": "i2", "v3": "i3"}, 4: {"v1": "b1", "v2": "i2"}}
"""The sets that the conversations speak of: the voter stays, is removed, and is added again under another name."""


def conversation(rng: random.Random) -> list[Call]:
    """Some calls of every kind, most of them addressed rightly."""
    rightly = [OWN._replace(set_version=version) for version in (1, 1, 1, 2, 2, 3)]
    addresses = [
        *rightly * 2,
        OWN._replace(rig="other"),
        OWN._replace(voter="v2"),
        OWN._replace(incarnation="i9"),
        OWN._replace(incarnation="b1", set_version=4),
    ]

    def ballot() -> Ballot:
        return Ballot(rng.randint(1, 12), rng.choice("abc"))

    def one() -> Call:
        to, key = rng.choice(addresses), rng.choice(list(CIRCLES))
        members, seen = SETS[to.set_version], rng.choice([0] * 40 + [1, 3, 9])
        match rng.choices(range(11), [6, 12, 10, 6, 10, 3, 3, 2, 2, 6, 3])[0]:
            case 0:
                return Hello(rig=to.rig, voter=to.voter, birth=rng.choice(["", "b1", "b2"]))
            case 1:
                return Prepare(to=to, key=key, ballot=ballot(), seen=seen)
            case 2:
                value = f'{{"n": {rng.randint(0, 9)}}}'
                owner, circle = rng.choice(["", "node1", "node2"]), CIRCLES[key]
                return Accept(
                    to=to,
                    key=key,
                    ballot=ballot(),
                    value=value,
                    promise=ballot(),
                    owner=owner,
                    circle=circle,
                    seen=seen,
                )
            case 3:
                return Read(to=to, key=key, seen=seen)
            case 4:
                session, since, interest = rng.choice(["s1", "s2"]), rng.randint(0, 5), rng.choice(INTERESTS)
                return Beat(to=to, session=session, since=since, seen=seen, interest=interest)
            case 5:
                return Raise(to=to, members=members)
            case 6:
                return Admit(to=to, members=members)
            case 7:
                return Retire(to=to, members=members, birth=rng.choice(["b1", "b2"]))
            case 8:
                return Form(to=to, members=members)
            case 9:
                keys = rng.sample([CLUSTER_KEY, "group/web", "group/none"], rng.randint(1, 3))
                return ReadMany(to=to, keys=tuple(keys), seen=seen)
            case _:
                return ListKeys(to=to)

    return [one() for _ in range(80)]


pytestmark = pytest.mark.containers


@pytest.mark.parametrize("seed", range(24))
def test_script_and_twin_answer_alike(seed: int, script: Ask, twin: Ask) -> None:
    calls = conversation(random.Random(seed))
    early, late = calls[:5], calls[5:]
    sequence: list[Call] = [*early, Form(to=OWN, members=MEMBERS), *late, Form(to=OWN._replace(incarnation="i9"))]

    answers = [(comparable(script(call)), comparable(twin(call))) for call in sequence]

    for call, (ours, theirs) in zip(sequence, answers, strict=True):
        assert ours == theirs, call


def story() -> list[Call]:
    """A voter's way out of the set and in again: formed, raised, removed, retired, admitted, behind."""
    new = OWN._replace(incarnation="b1", set_version=4)
    return [
        Form(to=OWN, members=MEMBERS),
        Prepare(to=OWN, key="group/web", ballot=Ballot(1, "a")),
        Raise(to=OWN._replace(set_version=2), members=SETS[2]),
        Read(to=OWN, key="group/web"),
        Retire(to=OWN._replace(set_version=2), members=SETS[2], birth="b1"),
        Raise(to=OWN._replace(set_version=3), members=SETS[3]),
        Retire(to=OWN._replace(set_version=3), members=SETS[3], birth="b1"),
        Prepare(to=OWN._replace(set_version=3), key="group/web", ballot=Ballot(9, "a")),
        Hello(rig=RIG, voter="v1", birth="b2"),
        Admit(to=new._replace(incarnation="b2"), members={"v1": "b2"}),
        Admit(to=new, members=SETS[4]),
        Admit(to=new, members=SETS[4]),
        ListKeys(to=new),
        Accept(to=new, key="group/web", ballot=Ballot(2, "a"), value="{}", promise=Ballot(3, "a"), owner="node1"),
        Beat(to=new, session="s1", since=0, seen=1),
        Beat(to=new, session="s1", since=0, seen=2),
        Read(to=new, key="group/web"),
        Hello(rig=RIG, voter="v1"),
    ]


def test_a_voter_goes_through_removal_and_admission_alike(script: Ask, twin: Ask) -> None:
    answers = [(comparable(script(call)), comparable(twin(call))) for call in story()]

    for call, (ours, theirs) in zip(story(), answers, strict=True):
        assert ours == theirs, call
    refusals = [reply.why for reply, _ in answers if isinstance(reply, Refused)]
    assert refusals == [
        RefusalReason.SET_VERSION,
        RefusalReason.MEMBER,
        RefusalReason.EMPTY,
        RefusalReason.INCARNATION,
        RefusalReason.BEHIND,
        RefusalReason.BEHIND,
    ]


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


def test_a_voter_refuses_whoever_has_asked_for_another(redis_box: Container, redis_port: int) -> None:
    """By its access list, before it hears any call: an empty one does not know from its data who it is."""
    rights = access_list("v2", "sesame").splitlines()[1].split()[2:]
    assert redis_box.exec_run(["redis-cli", "ACL", "SETUSER", "v2", *rights]).output == b"OK\n"

    async def ask(voter: str) -> Reply:
        voters = RedisVoters({voter: "127.0.0.1"}, password="sesame", port=redis_port)
        try:
            return (await voters.call(voter, Hello(rig=RIG, voter=voter), limit_us=2_000_000))[0]
        finally:
            await voters.close()

    assert type(asyncio.run(ask("v2"))).__name__ in ("HelloAnswer", "Refused")  # it may be formed by now, as v1
    with pytest.raises(VoterUnanswered, match="voter v1: "):
        asyncio.run(ask("v1"))
