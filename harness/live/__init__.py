"""The live adapters of the ports, and the processes of a node."""
