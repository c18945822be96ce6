"""The keys of the registers of the cluster database."""

__all__ = ["CLUSTER_KEY", "GROUP_PREFIX", "group_key"]

CLUSTER_KEY = "cluster"
GROUP_PREFIX = "group/"


def group_key(name: str) -> str:
    """The register of a group."""
    return GROUP_PREFIX + name
