"""The cluster service: its managers, which do no I/O, and the router that feeds them."""
