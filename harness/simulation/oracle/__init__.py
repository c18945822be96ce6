"""What was true in a run of the simulator: chosen values, leases, instances, acknowledgements."""
