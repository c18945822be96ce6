"""Reports of a run, made from its journal alone: one HTML page, JUnit XML, a Markdown summary."""
