"""Shuffled batches without end, which go on where they were."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset


class Batches:
    """Every image once in each round, in an order of its own. Where it stands is its state."""

    def __init__(self, data: TensorDataset, size: int) -> None:
        self.data, self.size = data, size
        self.order, self.place = torch.randperm(len(data)), 0

    def __next__(self) -> tuple[Tensor, ...]:
        if self.place + self.size > len(self.data):
            self.order, self.place = torch.randperm(len(self.data)), 0
        chosen = self.order[self.place : self.place + self.size]
        self.place += self.size
        return self.data[chosen]

    def state_dict(self) -> dict[str, Any]:
        """The order of this round, and how far it has come."""
        return {"order": self.order, "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        self.order, self.place = state["order"], state["place"]
