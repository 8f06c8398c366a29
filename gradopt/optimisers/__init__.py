"""Optimisers: everything of `torch.optim`, through an adapter."""
