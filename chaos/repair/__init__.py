"""Heals the faults of a dead run and removes its rig: the repair itself and the program of the reaper's container."""
