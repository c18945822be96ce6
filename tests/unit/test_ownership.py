"""Only objects of a rig are removed: strangers of every shape are still there afterwards."""

import os
from pathlib import Path
from typing import Any

import pytest
from engine_of_strangers import EngineOfStrangers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaos.arena.docker.availability_client import Client
from chaos.cli.main import run_command
from chaos.output.named_file import check_named_file, write_named_file
from harness.document.topology import default_topology
from harness.errors import HarnessError, NotOwned, UsageError
from harness.model import labels
from harness.model.name import is_name
from harness.rig.engine import own_files, ownership
from harness.rig.engine.own_files import discard_directory, remove_rendered, rendered_rigs, write_rendered
from harness.rig.engine.ownership import (
    kill_container,
    names_taken_by_others,
    pause_container,
    remove_container,
    remove_image,
    remove_network,
    remove_volume,
    stop_container,
)
from harness.rig.lifecycle import teardown
from harness.rig.lifecycle.compose_file import object_names, render
from harness.rig.lifecycle.create import topology_of
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.rig_lock import look_at_lock
from harness.rig.lifecycle.teardown import find_rigs, left_behind, remove_rig, rig_names, still_there

RIG = "mine"
OWN = {labels.RIG: RIG, labels.ROLE: "node", labels.NODE: "node1"}
EVERY_SHAPE = (
    *("", ".", "..", "/", "../..", "/tmp", "a/b", "a/../b", "~", "-rf", "--all", "A", "a b", "a\nb", "a=b", "*", "a.b"),
    *("\x00", "\ud800", "a\x00", "a" * 33, "a-", "-a", "1", "é", "${HOME}", "$(id)", "a,b", "a_b", "compose.yaml"),
)

settings.register_profile(
    "bounded",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
bounded = settings.get_profile("bounded")

names = st.one_of(
    st.sampled_from(EVERY_SHAPE),
    st.text(max_size=40),
    st.from_regex(r"[a-z][a-z0-9-]{0,40}", fullmatch=True),
    st.sampled_from([RIG, f"{RIG}-client", f"{RIG}_csv"]),
)
roles = st.one_of(st.none(), st.sampled_from([*labels.Role, "Node", "nodes", ""]), st.text(max_size=10))
stranger_labels = st.builds(
    lambda rig, role: {key: value for key, value in ((labels.RIG, rig), (labels.ROLE, role)) if value is not None},
    st.one_of(st.none(), names),
    roles,
).filter(lambda found: not (is_name(found.get(labels.RIG)) and found.get(labels.ROLE) in set(labels.Role)))


def as_client(engine: EngineOfStrangers) -> Any:
    return engine


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which the harness keeps its state, and beside it a directory of a stranger."""
    root = tmp_path / "checkout"
    root.mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "compose.yaml").write_text("services: {}\n")
    monkeypatch.setattr(teardown, "find_project_root", lambda: root)
    return root


def everything_below(place: Path) -> dict[str, str]:
    """What files and links there are, and what is in them."""
    return {
        path.relative_to(place).as_posix(): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in sorted(place.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


class TestNames:
    @given(name=names)
    @bounded
    def test_nothing_is_touched_under_any_name(self, checkout: Path, name: str) -> None:
        """`down --name X` with X of every shape, and a stranger's container, network and volume of that very name."""
        engine = EngineOfStrangers()
        engine.add_container(name, {})
        engine.add_container(f"{name}-client", {labels.RIG: name})
        engine.add_network(f"{name}_rig", {"other": name})
        engine.add_volume(f"{name}_csv", {})
        before = everything_below(checkout.parent)

        if is_name(name):
            assert remove_rig(as_client(engine), name, say=lambda _: None) == 0
        else:
            with pytest.raises(UsageError):
                remove_rig(as_client(engine), name, say=lambda _: None)

        assert engine.gone == []
        assert everything_below(checkout.parent) == before

    @pytest.mark.parametrize("name", [name for name in EVERY_SHAPE if "\x00" not in name])
    @pytest.mark.parametrize(
        "command",
        [
            ["down", "--name"],
            ["status", "--name"],
            ["up", "--name"],
            ["repair", "--name"],
            ["compose", "--name"],
            ["group", "move", "web1", "--name"],
            ["run", "any.yaml", "--name"],
            ["run", "any.yaml", "--on-rig"],
        ],
        ids=lambda command: " ".join(command[:1] + command[-1:]),
    )
    def test_every_entrance_refuses_it(
        self,
        command: list[str],
        name: str,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)

        assert run_command([*command, name]) == 2
        assert capsys.readouterr().err != ""

    @pytest.mark.parametrize("name", EVERY_SHAPE)
    def test_every_call_refuses_it(self, name: str) -> None:
        client = as_client(EngineOfStrangers())
        calls = [
            lambda: remove_rig(client, name, say=print),
            lambda: left_behind(client, name),
            lambda: still_there(client, name),
            lambda: topology_of(client, name),
            lambda: Rig.find(name, client=client),
            lambda: look_at_lock(client, name),
            lambda: remove_container(client, "box", rig=name),
            lambda: kill_container(client, "box", rig=name),
            lambda: remove_network(client, "net", rig=name),
            lambda: remove_volume(client, "disk", rig=name),
            lambda: remove_rendered(Path("."), name),
            lambda: write_rendered(Path("."), name, ""),
            lambda: default_topology(rig=name),
        ]

        for call in calls:
            with pytest.raises(UsageError):
                call()


class TestLabels:
    @given(found=stranger_labels, name=names)
    @bounded
    def test_stranger_outlives_the_removal_of_every_rig(self, checkout: Path, found: dict[str, str], name: str) -> None:
        """`down --all` on an engine with a rig, and with strangers whose labels have every shape but a rig's."""
        engine = EngineOfStrangers()
        own = {engine.add_container(f"{RIG}-node1", OWN)}
        own.add(engine.add_network(f"{RIG}_rig", {labels.RIG: RIG, labels.ROLE: "network"}))
        own.add(engine.add_volume(f"{RIG}_csv", {labels.RIG: RIG, labels.ROLE: "volume"}))
        engine.add_container(f"stranger-{name}", found)
        engine.add_network(f"stranger-{name}", found)
        engine.add_volume(f"stranger-{name}", found)
        before = everything_below(checkout.parent)

        rigs = find_rigs(as_client(engine), with_locks=True)
        for rig in rigs.names:
            remove_rig(as_client(engine), rig, say=lambda _: None)

        assert set(engine.gone) == own
        assert rigs.names == (RIG,)
        assert len(rigs.strangers) == (3 if labels.RIG in found else 0)
        assert everything_below(checkout.parent) == before

    def test_labels_of_an_image_make_no_rig(self) -> None:
        engine = EngineOfStrangers()
        engine.labels_of_images["committed"] = {**OWN, labels.SESSION: "node1@ab/1"}
        stranger = engine.add_container("debugging", {}, image="committed")
        client = as_client(engine)

        assert rig_names(client) == []
        assert remove_rig(client, RIG, say=lambda _: None) == 0
        with pytest.raises(NotOwned, match="come from its image"):
            remove_container(client, stranger, rig=RIG)
        assert engine.gone == []

    def test_vm_from_an_image_with_labels_is_its_rigs(self) -> None:
        engine = EngineOfStrangers()
        engine.labels_of_images["committed"] = {**OWN, labels.ROLE: "vm", labels.SESSION: "node1@ab/1"}
        mine = {**OWN, labels.ROLE: "vm", labels.SESSION: "node1@cd/2"}
        vm = engine.add_container(f"{RIG}-node1-web1-vm-abcdef", mine, image="committed")

        remove_container(as_client(engine), vm, rig=RIG)

        assert vm in engine.gone

    @pytest.mark.parametrize(("name", "own"), [(f"{RIG}-node1", True), (f"{RIG}_voter_disks", True), ("other", False)])
    def test_name_decides_when_the_image_is_gone(self, name: str, own: bool) -> None:
        engine = EngineOfStrangers()
        engine.add_container(name, OWN, image="removed")

        assert remove_rig(as_client(engine), RIG, say=lambda _: None) == own

    def test_what_is_left_alone_is_named(self) -> None:
        engine = EngineOfStrangers()
        engine.add_container("stranger", {labels.RIG: RIG, labels.ROLE: "nobody\x1b[31m"})
        said: list[str] = []

        assert remove_rig(as_client(engine), RIG, say=said.append) == 0

        assert said == [
            "left alone: container stranger: its labels name the rig 'mine' and the role 'nobody\\x1b[31m', and it is "
            "no object of a rig"
        ]


class TestEachCall:
    @pytest.mark.parametrize("rig", ["mine", "other"])
    @pytest.mark.parametrize(
        "call",
        [
            lambda client, box, rig: remove_container(client, box, rig=rig, roles=(labels.Role.CLIENT,)),
            lambda client, box, rig: kill_container(client, box, rig=rig, roles=(labels.Role.CLIENT,)),
            lambda client, box, rig: pause_container(client, box, rig=rig, roles=(labels.Role.CLIENT,)),
            lambda client, box, rig: stop_container(client, box, rig=rig, grace_s=1, roles=(labels.Role.CLIENT,)),
        ],
    )
    def test_container_of_another_role_or_rig_is_refused(self, call: Any, rig: str) -> None:
        engine = EngineOfStrangers()
        node = engine.add_container(f"{RIG}-node1", OWN)

        with pytest.raises(NotOwned):
            call(as_client(engine), node, rig)
        assert engine.gone == []

    def test_volume_and_network_of_another_are_refused(self) -> None:
        engine = EngineOfStrangers()
        network = engine.add_network("other_rig", {labels.RIG: "other", labels.ROLE: "network"})
        volume = engine.add_volume(f"{RIG}_hold_node1", {labels.RIG: RIG, labels.ROLE: "volume"})

        with pytest.raises(NotOwned):
            remove_network(as_client(engine), network, rig=RIG)
        with pytest.raises(NotOwned):
            remove_volume(as_client(engine), volume, rig=RIG, roles=(labels.Role.HOLD,))
        assert engine.gone == []

    @pytest.mark.parametrize(("found", "tags"), [({}, []), ({ownership.IMAGE_LABEL: "1"}, ["of-a-stranger:latest"])])
    def test_image_of_another_is_refused(self, found: dict[str, str], tags: list[str]) -> None:
        engine = EngineOfStrangers()
        engine.labels_of_images["image"], engine.tags["image"] = found, tags

        with pytest.raises(NotOwned):
            remove_image(as_client(engine), "image")
        assert engine.gone == []

    def test_stranger_with_the_name_of_the_client_is_refused(self) -> None:
        """A run used to remove it, with its volumes."""
        engine = EngineOfStrangers()
        engine.add_container(f"{RIG}-client", {"precious": "yes"})
        client = Client(as_client(engine), rig=RIG, vms={}, sink=lambda _: None)

        with pytest.raises(UsageError, match="its name is taken"):
            client.start()
        assert engine.gone == []

    @pytest.mark.parametrize("name", [f"{RIG}-node2", f"{RIG}-client", f"{RIG}_secrets_carrier"])
    def test_stranger_with_a_name_of_the_rig_is_found(self, name: str) -> None:
        engine = EngineOfStrangers()
        engine.add_container(name, {})
        engine.add_container(f"{RIG}-postgres", {})
        engine.add_container(f"{RIG}-node1", OWN)

        assert self.taken(engine) == [f"container {name}"]

    def test_volume_network_and_project_of_a_stranger_are_found(self) -> None:
        engine = EngineOfStrangers()
        engine.add_volume(f"{RIG}_secrets", {})
        engine.add_volume(f"{RIG}_formed", {})
        engine.add_volume("other", {})
        engine.add_network(f"{RIG}_rig", {})
        engine.add_container("shop", {"com.docker.compose.project": RIG})

        assert self.taken(engine) == [
            "container shop",
            f"network {RIG}_rig",
            f"volume {RIG}_formed",
            f"volume {RIG}_secrets",
        ]

    @staticmethod
    def taken(engine: EngineOfStrangers) -> list[str]:
        wanted = object_names(default_topology(rig=RIG))
        return names_taken_by_others(
            as_client(engine), RIG, containers=wanted.containers, volumes=wanted.volumes, networks=wanted.networks
        )


class TestFiles:
    def test_rendered_file_is_written_and_removed(self, checkout: Path) -> None:
        file = write_rendered(checkout, RIG, render(default_topology(rig=RIG)))
        write_rendered(checkout, RIG, render(default_topology(rig=RIG)))

        assert file == checkout / ".blackstart" / "rigs" / RIG / "compose.yaml"
        assert rendered_rigs(checkout) == [RIG]
        assert remove_rendered(checkout, RIG)
        assert not file.parent.exists()
        assert not remove_rendered(checkout, RIG)

    def test_file_of_a_stranger_stays(self, checkout: Path) -> None:
        directory = checkout / ".blackstart" / "rigs" / RIG
        directory.mkdir(parents=True)
        (directory / "compose.yaml").write_text("services: {}\n")
        (directory / "notes").write_text("precious")

        assert rendered_rigs(checkout) == []
        assert not remove_rendered(checkout, RIG)
        with pytest.raises(HarnessError, match="did not write that file"):
            write_rendered(checkout, RIG, "")
        assert len(everything_below(checkout)) == 2

    def test_files_beside_the_rendered_one_stay(self, checkout: Path) -> None:
        file = write_rendered(checkout, RIG, render(default_topology(rig=RIG)))
        (file.parent / "notes").write_text("precious")

        remove_rendered(checkout, RIG)

        assert (file.parent / "notes").read_text() == "precious"

    @pytest.mark.parametrize("link", [".blackstart", ".blackstart/rigs", f".blackstart/rigs/{RIG}"])
    def test_no_link_leads_out_of_the_state_folder(self, checkout: Path, tmp_path: Path, link: str) -> None:
        real = tmp_path / "elsewhere"
        target = real.joinpath(*Path(f".blackstart/rigs/{RIG}").relative_to(link).parts)
        target.mkdir(parents=True)
        (target / "compose.yaml").write_text(render(default_topology(rig=RIG)))
        (checkout / link).parent.mkdir(parents=True, exist_ok=True)
        (checkout / link).symlink_to(real)
        before = everything_below(tmp_path)

        assert not remove_rendered(checkout, RIG)
        assert rendered_rigs(checkout) == []
        with pytest.raises(HarnessError):
            write_rendered(checkout, RIG, "text")
        assert everything_below(tmp_path) == before

    def test_linked_file_is_neither_written_nor_removed(self, checkout: Path, tmp_path: Path) -> None:
        directory = checkout / ".blackstart" / "rigs" / RIG
        directory.mkdir(parents=True)
        (tmp_path / "other.yaml").write_text(render(default_topology(rig=RIG)))
        (directory / "compose.yaml").symlink_to(tmp_path / "other.yaml")
        before = everything_below(tmp_path)

        assert not remove_rendered(checkout, RIG)
        with pytest.raises(HarnessError):
            write_rendered(checkout, RIG, "text")
        assert everything_below(tmp_path) == before

    def test_discarded_directory_loses_no_directory_of_another(self, tmp_path: Path) -> None:
        partial = tmp_path / "partial"
        (partial / "inner").mkdir(parents=True)
        (partial / "inner" / "file").write_text("precious")
        (partial / "a.whl").write_text("")

        discard_directory(partial)

        assert (partial / "inner" / "file").exists()

    def test_named_output_is_no_device_link_directory_or_input(self, tmp_path: Path) -> None:
        given, link, pipe = tmp_path / "my.yaml", tmp_path / "link", tmp_path / "pipe"
        given.write_text("precious")
        link.symlink_to(given)
        os.mkfifo(pipe)

        for path in (link, pipe, tmp_path, Path("/dev/null"), given):
            with pytest.raises(UsageError, match="name another place"):
                write_named_file(path, "text", inputs=[given])
        assert given.read_text() == "precious"

    def test_named_output_replaces_a_plain_file(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "report.html"

        write_named_file(path, "first")
        write_named_file(path, "second")

        assert path.read_text() == "second"
        assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
        check_named_file(path)


def test_state_folder_is_the_one_that_git_ignores() -> None:
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text().split()

    assert f"{own_files.STATE}/" in ignored


def test_clean_removes_what_the_project_keeps_and_names_the_rest(checkout: Path) -> None:
    write_rendered(checkout, RIG, render(default_topology(rig=RIG)))
    state = checkout / ".blackstart"
    for place in ("wheels/0123456789abcdef/a.whl", "wheels/mine/a.whl", "images.lock", "rigs/notes", "precious"):
        (state / place).parent.mkdir(parents=True, exist_ok=True)
        (state / place).write_text("")

    left = own_files.remove_state(checkout)

    assert [name for name in left if (checkout / name).is_file()] == [
        ".blackstart/precious",
        ".blackstart/rigs/notes",
        ".blackstart/wheels/mine/a.whl",
    ]
    assert own_files.remove_state(checkout / "elsewhere") == []


@pytest.mark.parametrize(
    ("tag", "found", "removed"),
    [
        ("blackstart/guest:latest", {ownership.IMAGE_LABEL: "1"}, True),
        ("blackstart/guest:latest", {}, False),
        ("debian:bookworm-slim", {ownership.IMAGE_LABEL: "1"}, False),
        (ownership.MADE_BASE, {}, True),
    ],
)
def test_only_tags_of_the_project_are_removed(tag: str, found: dict[str, str], removed: bool) -> None:
    engine = EngineOfStrangers()
    engine.labels_of_images[tag] = found

    if removed:
        assert ownership.remove_tag(as_client(engine), tag)
    else:
        with pytest.raises(NotOwned):
            ownership.remove_tag(as_client(engine), tag)

    assert engine.gone == ([tag] if removed else [])
