"""A run as data: the history of observations, what is derived from it, and the verdict."""
