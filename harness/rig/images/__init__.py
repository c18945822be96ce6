"""Builds the images of the node and of the guest, and the base image that both stand on."""
