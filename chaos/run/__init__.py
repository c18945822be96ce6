"""Executes experiments through the arena port."""
