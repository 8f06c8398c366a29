"""What an optimiser of many starts remembers of each."""

from collections.abc import Iterable

import torch
from torch import Tensor

from gradopt.contracts import State


class Rows:
    """Tensors by name, each with a leading axis of starts: a row is what is remembered of one start.

    Args:
        number: Of starts.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._tensors: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        """That of all starts; zero where nothing has been put."""
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def put(self, places: Tensor, **values: Tensor) -> None:
        """Set the rows of some starts, in place; those of a name that is new are zero elsewhere."""
        for name, value in values.items():
            if name not in self._tensors:
                self._tensors[name] = value.new_zeros(self._number, *value.shape[1:])
            self._tensors[name][places] = value

    def at(self, places: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The rows of some starts, by name: a copy."""
        return {name: self._tensors[name][places] for name in (self._tensors if names is None else names)}

    def widen(self, name: str, width: int) -> None:
        """Make the second axis at least as long; what is new is zero."""
        tensor = self._tensors[name]
        if (missing := width - tensor.shape[1]) > 0:
            room = tensor.new_zeros(len(tensor), missing, *tensor.shape[2:])
            self._tensors[name] = torch.cat([tensor, room], dim=1)

    def keep(self, kept: Tensor) -> None:
        """Forget the starts that are not at these places."""
        self._number = len(kept)
        self._tensors = {name: tensor[kept] for name, tensor in self._tensors.items()}

    def state_dict(self) -> State:
        return {"number": self._number, "tensors": {name: tensor.clone() for name, tensor in self._tensors.items()}}

    def load_state_dict(self, state: State) -> None:
        self._number = state["number"]
        self._tensors = {name: tensor.clone() for name, tensor in state["tensors"].items()}
