"""The arena port implemented on the deterministic simulator."""
