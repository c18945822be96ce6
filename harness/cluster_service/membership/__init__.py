"""Which nodes are alive, which may act, and which are fenced."""
