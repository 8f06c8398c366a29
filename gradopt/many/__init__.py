"""Many starts of one objective: assembled, run as one tensor program, and concluded."""
