"""Experiment documents: text to records, with refusals. Nothing here starts anything."""
