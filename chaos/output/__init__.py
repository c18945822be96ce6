"""Text that leaves the process: sanitized, printed in one place, written to files as a whole."""
