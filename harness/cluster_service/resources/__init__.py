"""How the owner of a group starts, stops, checks and restarts its resources."""
