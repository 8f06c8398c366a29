"""What a run shows as pictures: the graph of its objective, its convergence, its landscape, its starts."""

FILES = ("graph.svg", "graph.png", "convergence.png", "landscape.png", "starts.png")
"""In the directory of a run."""
