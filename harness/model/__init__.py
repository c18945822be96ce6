"""Records, states and rules of the cluster as plain data: no I/O, no clock, no random numbers."""
