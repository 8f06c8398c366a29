"""The optimisers of many starts at once: the twins of those of one, with an axis of starts in all their state."""
