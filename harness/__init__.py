"""The rig, the cluster service and the replicated database."""

__all__ = ["__version__"]

__version__ = "0.1.0"
"""That of the package, spelled out: a node has the code, not the package's metadata."""
