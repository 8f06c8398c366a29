"""Criteria decide when a run ends, and say why."""
