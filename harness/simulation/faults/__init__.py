"""Fault schedules and their injection into a simulated world."""
