"""Objectives whose graphs are drawn."""

import torch
from torch import nn
from torch.nn import functional

from gradopt import Objective
from gradopt.objectives.polynomial import Polynomial
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.pictures.graph import graph, recorded


class Network(Objective):
    """A multilayer perceptron with a penalty, such as that of gradopt-learning."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 3)])
            self.images, self.labels = torch.randn(7, 8), torch.randint(3, (7,))

    def forward(self, batch=None):
        values = self.images
        for layer in self.layers[:-1]:
            values = functional.relu(layer(values))
        weights = [p.square().sum() for p in self.parameters() if p.ndim > 1]
        return functional.cross_entropy(self.layers[-1](values), self.labels) + 0.005 * torch.stack(weights).sum()


class Twisted(Objective):
    """Long edges beside each other, and boxes of many sizes between them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(()))

    def forward(self, batch=None):
        a, b = self.first, self.second
        inner = (a * b).exp().cumsum(0).sin() - a
        outer = torch.stack([inner.sum(), b, a[0] / b, a.prod(), inner.norm()])
        return (outer * b + 2).logsumexp(0) * a[-1] - 3 * inner[1] + b**3


OBJECTIVES = {
    "polynomial": Polynomial,
    "rosenbrock": Rosenbrock,
    "network": Network,
    "twisted": Twisted,
}


def nodes(name):
    objective = OBJECTIVES[name]()
    return graph(recorded(objective), {id(p): name for name, p in objective.named_parameters()})
