"""Random input for every reader of foreign text and bytes: what one must refuse, it refuses in its own words."""
