"""The simulated twins of the live adapters: a seeded world on a virtual clock, in one process, without threads."""
