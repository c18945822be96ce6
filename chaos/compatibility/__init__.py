"""Which experiments and faults can run in which arena, and on this host."""
