"""Creates, starts, stops, checks and removes rigs."""
