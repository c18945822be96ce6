"""Makes the modules of this directory importable by the tests of every directory below it."""
