"""Geometry of what the unknowns may be: boxes and projections. Nothing here knows an optimiser."""
