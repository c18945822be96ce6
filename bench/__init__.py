"""Benchmarks: each measures a figure and its floor in the same run, in turn."""
