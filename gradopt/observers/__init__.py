"""Observers watch a run and write about it; none of them can change or harm it."""
