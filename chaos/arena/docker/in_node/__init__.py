"""Single-file scripts, standard library only, that are copied into containers and run there."""
