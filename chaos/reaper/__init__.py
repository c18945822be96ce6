"""The reaper: a container beside the rig that heals the faults of a dead run and removes its rig.

`guard` is the runner's side, `program` runs in the container, `lease` decides, `sources` packs the code. A repair by
command does the same work at once (`chaos.repair.rig_repair`).
"""
