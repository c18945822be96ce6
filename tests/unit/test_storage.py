"""What a driver learns of the cluster shared volume, also when it is gone or hangs."""

import asyncio
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from harness.live import storage
from harness.live.storage import SharedVolume


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "web1" / "disk").mkdir(parents=True)
    (tmp_path / "web1" / "config.json").touch()
    (tmp_path / "web2").mkdir()
    (tmp_path / "web2" / "config.json").touch()
    volume = SharedVolume(tmp_path)

    assert asyncio.run(volume.missing("web1")) == ()
    assert asyncio.run(volume.missing("web2")) == ("disk",)
    assert asyncio.run(volume.missing("web3")) == ("config.json", "disk")
    assert asyncio.run(volume.missing("web1", volumes=("data",))) == ("volumes/data",)


def test_absence_of_the_volume_is_not_the_vms(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing-mounted"):
        asyncio.run(SharedVolume(tmp_path / "nothing-mounted").missing("web1"))


def test_volume_that_hangs_is_given_up_and_not_asked_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LOOK_LIMIT_S", 0.05)
    monkeypatch.setattr(storage, "LOOKS_LIMIT", 2)
    thaw = threading.Event()
    looks: list[str] = []

    class HungVolume(SharedVolume):
        def _missing(self, vm: str, volumes: Collection[str]) -> tuple[str, ...]:
            del volumes
            looks.append(vm)
            thaw.wait(5)
            return ()

    async def scenario() -> tuple[list[str], tuple[str, ...]]:
        volume, errors = HungVolume(), []
        for vm in ("web1", "web2", "web3"):
            with pytest.raises(OSError, match="answer") as error:
                await volume.missing(vm)
            errors.append(str(error.value))
        thaw.set()
        await asyncio.sleep(0.05)
        return errors, await volume.missing("web4")

    errors, found = asyncio.run(scenario())

    assert "earlier looks" in errors[2]
    assert looks == ["web1", "web2", "web4"]
    assert found == ()
