"""Talks to the running nodes of a rig: API client, routing of requests, status, conditions."""
