"""Monitors that report violations of the rules. They never change the world."""
