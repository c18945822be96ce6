"""A run in a process of its own, with a reaper that does not wait long: `killed_run.py FILE OUT NAME|--on-rig NAME`.

The tests kill it. It is the command `blackstart run` with other times for the reaper.
"""

import sys
from pathlib import Path

from chaos.reaper.orders import ReaperTimes
from chaos.run.batch import run_files
from chaos.run.options import RunOptions

TIMES = ReaperTimes(lease_s=3, grace_s=0)

if __name__ == "__main__":
    file, out, *where = sys.argv[1:]
    on_rig = where[1] if where[0] == "--on-rig" else None
    options = RunOptions(
        out=Path(out),
        rig=None if on_rig else where[0],
        on_rig=on_rig,
        reaper=TIMES,
        command=f"killed_run.py {file}",
    )
    sys.exit(run_files([Path(file)], options=options))
