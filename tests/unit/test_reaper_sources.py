"""The code that a reaper gets: complete, and content with the Python packages of the nodes' image."""

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from chaos.reaper.sources import CODE, LEDGER_DIRECTORY, UNPACKED_IN, packed_sources

ROOT = Path(__file__).parents[2]
TOLD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import chaos.repair.reaper_program, chaos.repair.rig_repair
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print(json.dumps(files))
"""


def test_reaper_needs_no_package_that_its_image_lacks(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed_sources())) as archive:
        for member in archive:
            file = archive.extractfile(member)
            path = tmp_path / member.name
            (path.parent if file else path).mkdir(parents=True, exist_ok=True)
            if file is not None:
                path.write_bytes(file.read())
    code = tmp_path / Path(CODE).relative_to(UNPACKED_IN)

    told = subprocess.run(
        [sys.executable, "-I", "-c", TOLD, str(code)], capture_output=True, text=True, check=True, timeout=60
    )

    files: dict[str, str] = json.loads(told.stdout)
    installed = {name.partition(".")[0] for name, file in files.items() if "site-packages" in file}
    installed = {name for name in installed if not name.startswith("_")}
    listed = (ROOT / "images/hypervisor/requirements.txt").read_text()
    in_image = {name.replace("-", "_").replace("pyyaml", "yaml") for name in re.findall(r"(?m)^([\w-]+)==", listed)}
    assert installed - in_image == set()
    ours = {name: file for name, file in files.items() if name.partition(".")[0] in ("chaos", "harness")}
    assert len(ours) > 50
    assert [name for name, file in ours.items() if not file.startswith(str(code))] == []
    assert (tmp_path / Path(LEDGER_DIRECTORY).relative_to(UNPACKED_IN)).is_dir()
