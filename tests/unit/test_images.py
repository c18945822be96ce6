"""Building the images: what makes one stale, what a context holds, where base and wheels come from. No engine."""

import io
import tarfile
import zipfile
from types import SimpleNamespace

import docker.errors
import pytest

from harness.errors import HarnessError
from harness.rig.images import base_image
from harness.rig.images.build import ImageState, ensure_images, image_status
from harness.rig.images.build_context import GUEST, HYPERVISOR, context_digest, find_project_root, pack_context
from harness.rig.images.wheels import ensure_wheels


def ignore(_):
    """A `say` that tells nobody."""


@pytest.fixture
def checkout(tmp_path):
    """A small checkout whose wheels are in the cache already."""
    for name, text in {
        "images/hypervisor/Dockerfile": "FROM x",
        "images/hypervisor/requirements.txt": "redis==8.1.0\n",
        "images/guest/Dockerfile": "FROM x",
        "images/guest/guest.py": "print()",
        "harness/__init__.py": "",
        "harness/live/service.py": "pass",
        "harness/database/prepare.lua": "return 1",
        "harness/rig/images/build.py": "pass",
        "harness/simulation/world/world.py": "pass",
        "chaos/run/runner.py": "pass",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    requirements = tmp_path / "images/hypervisor/requirements.txt"
    ensure_wheels(requirements, architecture="x86_64", project_root=tmp_path, say=ignore, download=put_wheel)
    return tmp_path


def put_wheel(requirements, architecture, directory):
    """The twin of pip download: one wheel with a package, its metadata, a data directory and a script."""
    with zipfile.ZipFile(directory / "redis-8.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("redis/__init__.py", "x = 1")
        wheel.writestr("redis-8.1.0.dist-info/METADATA", requirements.read_text() + architecture)
        wheel.writestr("redis-8.1.0.data/purelib/extra.py", "y = 2")
        wheel.writestr("redis-8.1.0.data/scripts/tool", "#!")


class FakeEngine:
    """As much of the Docker client as building needs: images by tag, with ids that count up."""

    def __init__(self, *tags, registry_has=(), failing=""):
        self.images = self
        self.api = self
        self.builds = []
        self.tagged = {}
        self.registry_has = registry_has
        self.failing = failing
        self._ids = 0
        for tag in tags:
            self._add(tag, {})

    def info(self):
        return {"Architecture": "x86_64"}

    def get(self, tag):
        if tag not in self.tagged:
            raise docker.errors.ImageNotFound(tag)
        return self.tagged[tag]

    def remove(self, image_id):
        assert image_id not in {image.id for image in self.tagged.values()}

    def pull(self, repository, *, tag, stream, decode):
        assert stream
        assert decode
        yield {"status": "Pulling"}
        if f"{repository}:{tag}" in self.registry_has:
            self._add(f"{repository}:{tag}", {})
        else:
            yield {"error": "no such host"}

    def build(self, *, fileobj, tag, buildargs, labels, **_):
        with tarfile.open(fileobj=fileobj) as context:
            assert "Dockerfile" in context.getnames()
        yield {"stream": "Step 1/2 : FROM x\n"}
        if tag == self.failing:
            yield {"stream": "E: Unable to locate package\n"}
            yield {"error": "returned a non-zero code: 100"}
            return
        self.builds.append(tag)
        self._add(tag, {**labels, "io.blackstart.base": buildargs["BASE_ID"]})

    def _add(self, tag, labels):
        self._ids += 1
        self.tagged[tag] = SimpleNamespace(id=f"sha256:{self._ids}", labels=labels)


BOTH = [GUEST.tag, HYPERVISOR.tag]


class TestEnsureImages:
    def test_missing_images_are_built(self, checkout):
        engine = FakeEngine(base_image.MADE)

        images = ensure_images(engine, project_root=checkout, say=ignore)

        assert engine.builds == BOTH
        assert images.hypervisor.id == engine.get(HYPERVISOR.tag).id
        assert images.guest.id == engine.get(GUEST.tag).id

    def test_nothing_is_built_or_said_when_nothing_has_changed(self, checkout):
        engine, said = FakeEngine(base_image.MADE), []
        first = ensure_images(engine, project_root=checkout, say=ignore)

        second = ensure_images(engine, project_root=checkout, say=said.append)

        assert second == first
        assert engine.builds == BOTH
        assert said == []

    @pytest.mark.parametrize(
        ("changed", "rebuilt"),
        [
            ("harness/live/service.py", [HYPERVISOR.tag]),
            ("harness/database/prepare.lua", [HYPERVISOR.tag]),
            ("images/hypervisor/requirements.txt", [HYPERVISOR.tag]),
            ("images/guest/guest.py", [GUEST.tag]),
            ("harness/rig/images/build.py", []),
            ("harness/simulation/world/world.py", []),
            ("harness/live/__pycache__/service.cpython-311.pyc", []),
            ("chaos/run/runner.py", []),
        ],
    )
    def test_a_change_rebuilds_what_is_made_of_it(self, checkout, changed, rebuilt):
        engine = FakeEngine(base_image.MADE)
        ensure_images(engine, project_root=checkout, say=ignore)
        (checkout / changed).parent.mkdir(exist_ok=True)
        (checkout / changed).write_text("# changed")
        requirements = checkout / "images/hypervisor/requirements.txt"
        ensure_wheels(requirements, architecture="x86_64", project_root=checkout, say=ignore, download=put_wheel)
        engine.builds.clear()

        ensure_images(engine, project_root=checkout, say=ignore)

        assert engine.builds == rebuilt

    def test_another_base_rebuilds_both(self, checkout):
        engine = FakeEngine(base_image.MADE)
        ensure_images(engine, project_root=checkout, say=ignore)
        engine.builds.clear()
        engine._add(base_image.MADE, {})

        ensure_images(engine, project_root=checkout, say=ignore)

        assert engine.builds == BOTH

    def test_images_that_were_loaded_without_their_base_are_used(self, checkout):
        engine = FakeEngine(base_image.MADE)
        ensure_images(engine, project_root=checkout, say=ignore)
        del engine.tagged[base_image.MADE]

        ensure_images(engine, project_root=checkout, say=ignore)

        assert engine.builds == BOTH

    def test_failed_build_shows_its_last_output(self, checkout):
        engine = FakeEngine(base_image.MADE, failing=GUEST.tag)

        with pytest.raises(HarnessError, match=r"blackstart/guest(?s:.*)code: 100(?s:.*)Unable to locate package"):
            ensure_images(engine, project_root=checkout, say=ignore)

    def test_status_tells_missing_from_stale_from_current(self, checkout):
        engine = FakeEngine(base_image.MADE)
        before = image_status(engine, project_root=checkout)
        ensure_images(engine, project_root=checkout, say=ignore)
        (checkout / "images/guest/guest.py").write_text("print(1)")

        hypervisor, guest = image_status(engine, project_root=checkout)

        assert {status.state for status in before} == {ImageState.MISSING}
        assert hypervisor.state is ImageState.CURRENT
        assert guest.state is ImageState.STALE


class TestBase:
    def test_base_of_a_registry_is_preferred_when_it_is_here(self):
        engine = FakeEngine(base_image.MADE, base_image.PULLED)

        assert base_image.ensure_base(engine, say=ignore).reference == base_image.PULLED

    def test_base_that_was_made_earlier_is_used_without_asking_a_registry(self):
        engine, said = FakeEngine(base_image.MADE, registry_has=[base_image.PULLED]), []

        assert base_image.ensure_base(engine, say=said.append).reference == base_image.MADE
        assert said == []

    def test_base_is_pulled_when_none_is_here(self):
        engine = FakeEngine(registry_has=[base_image.PULLED])

        assert base_image.ensure_base(engine, say=ignore).reference == base_image.PULLED

    def test_engine_of_an_unknown_kind_is_refused(self):
        engine = FakeEngine()
        engine.info = lambda: {"Architecture": "riscv64"}

        with pytest.raises(HarnessError, match="riscv64"):
            base_image.architecture_of_engine(engine)


def names_in(context):
    with tarfile.open(fileobj=io.BytesIO(context)) as archive:
        return archive.getnames()


class TestContext:
    def wheels(self, checkout):
        return sorted((checkout / ".blackstart").rglob("*.whl"))

    def test_holds_sources_unpacked_wheels_and_the_harness_of_a_node(self, checkout):
        context = pack_context(HYPERVISOR, project_root=checkout, wheels=self.wheels(checkout))

        assert names_in(context) == [
            "Dockerfile",
            "harness/__init__.py",
            "harness/database/prepare.lua",
            "harness/live/service.py",
            "packages/extra.py",
            "packages/redis-8.1.0.dist-info/METADATA",
            "packages/redis/__init__.py",
            "requirements.txt",
        ]

    def test_guest_holds_only_its_own_directory(self, checkout):
        assert names_in(pack_context(GUEST, project_root=checkout, wheels=[])) == ["Dockerfile", "guest.py"]

    def test_same_sources_give_the_same_bytes(self, checkout):
        first = pack_context(HYPERVISOR, project_root=checkout, wheels=self.wheels(checkout))
        (checkout / "harness/live/service.py").touch()

        assert pack_context(HYPERVISOR, project_root=checkout, wheels=self.wheels(checkout)) == first

    def test_digest_depends_on_architecture_and_base(self, checkout):
        digests = {
            context_digest(HYPERVISOR, project_root=checkout, architecture=architecture, base_id=base_id)
            for architecture in ("x86_64", "aarch64")
            for base_id in ("a", "b")
        }

        assert len(digests) == 4

    def test_moving_bytes_between_files_changes_the_digest(self, checkout):
        def digest():
            return context_digest(GUEST, project_root=checkout, architecture="x86_64", base_id="a")

        (checkout / "images/guest/a").write_text("xy")
        (checkout / "images/guest/b").write_text("")
        first = digest()
        (checkout / "images/guest/a").write_text("x")
        (checkout / "images/guest/b").write_text("y")

        assert digest() != first

    def test_both_images_begin_with_the_same_steps(self):
        root = find_project_root()
        first, second = (
            (recipe.sources(root) / "Dockerfile").read_text().partition("FROM")[2].split("\n\n")[:2]
            for recipe in (HYPERVISOR, GUEST)
        )

        steps = [
            [line for line in "\n".join(part).splitlines() if not line.startswith("#")] for part in (first, second)
        ]
        assert steps[0] == steps[1]
        assert any("install" in line for line in steps[0])


class TestWheels:
    def test_broken_download_leaves_nothing_and_is_tried_again(self, tmp_path):
        requirements = tmp_path / "requirements.txt"
        requirements.write_text("redis==8.1.0\n")

        def break_off(requirements, architecture, directory):
            put_wheel(requirements, architecture, directory)
            raise HarnessError("the line went dead")

        with pytest.raises(HarnessError, match="dead"):
            ensure_wheels(requirements, architecture="x86_64", project_root=tmp_path, say=ignore, download=break_off)
        left = list((tmp_path / ".blackstart").rglob("*.whl"))
        wheels = ensure_wheels(
            requirements, architecture="x86_64", project_root=tmp_path, say=ignore, download=put_wheel
        )

        assert left == []
        assert [wheel.name for wheel in wheels] == ["redis-8.1.0-py3-none-any.whl"]

    def test_each_kind_of_architecture_has_its_own_set(self, tmp_path):
        requirements = tmp_path / "requirements.txt"
        requirements.write_text("redis==8.1.0\n")
        first, second = (
            ensure_wheels(
                requirements, architecture=architecture, project_root=tmp_path, say=ignore, download=put_wheel
            )
            for architecture in ("x86_64", "aarch64")
        )

        assert first != second

    def test_requirements_are_exact_and_cover_what_the_package_declares(self):
        root = find_project_root()
        lines = (HYPERVISOR.sources(root) / "requirements.txt").read_text().splitlines()
        pinned = [line for line in lines if line and not line.startswith("#")]

        assert all(line.count("==") == 1 for line in pinned)
        # redis.asyncio imports it on Python 3.11.2, which the image has; a newer pip would not fetch it
        assert any(line.startswith("async-timeout==") for line in pinned)
