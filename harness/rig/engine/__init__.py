"""Calls of the container engine, each with a limit and with proof of ownership. Knows no cluster."""
