"""What a run shows as pictures: the graph of its objective, its convergence, its landscape, its starts."""
