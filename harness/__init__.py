"""The rig, the cluster service and the replicated database."""
