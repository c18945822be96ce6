"""Searching the simulator for schedules of faults that break the cluster, making them small, and running them again."""
