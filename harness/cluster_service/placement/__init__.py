"""Which node owns a group."""
