"""Requests of administrators, and drains."""
