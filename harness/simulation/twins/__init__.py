"""One simulated implementation for each port."""
