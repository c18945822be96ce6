"""YAML text to topology records, with refusals that name file and line. Knows no engine."""
