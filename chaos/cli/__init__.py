"""The command line: words to calls, errors to exit codes, results to tables or JSON. It decides nothing."""
