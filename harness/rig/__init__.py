"""The rig: nodes as containers, their networks and volumes, and the images they are made of."""
