"""What a run shows as pictures: the graph of its objective, its convergence, its landscape, its starts."""

FILES = ("graph.svg", "graph.png", "convergence.png", "landscape.png", "starts.png")
"""In the directory of a run."""

NO_MATPLOTLIB = "only the graph, as matplotlib is missing: pip install 'gradopt[pictures]'"
"""What is said of the others then."""
