"""What faults do to real containers, one module a family. Calls block, each with a limit; `arena` runs them
in threads.
"""
