"""The port through which a run acts on a cluster, and its implementations: containers and the simulator."""
