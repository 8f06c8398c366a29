"""Engines execute steps: the same records and the same endings, at different speeds."""
