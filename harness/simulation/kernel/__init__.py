"""Virtual time and order. Knows no cluster."""
