"""Experiments, faults, checkers and reports."""
