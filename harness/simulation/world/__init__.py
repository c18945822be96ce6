"""The simulated cluster: nodes and twins composed on one virtual clock."""
