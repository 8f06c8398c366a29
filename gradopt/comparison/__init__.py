"""Runs beside each other: what they have left on disk, as a table and as pictures. Nothing here imports torch."""
