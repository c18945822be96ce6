"""Benchmarks: each measures a figure and its floor in the same run, alternating, and prints medians and their ratio."""
