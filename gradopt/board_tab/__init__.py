"""A tab of TensorBoard for runs of gradopt: leaderboard, profiles, and basins of many starts."""
