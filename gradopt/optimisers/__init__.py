"""Optimisers: those of `torch.optim`, through an adapter, and solvers of our own."""
