"""The handwritten digits of scikit-learn, as images between -1 and 1."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor


def digits() -> tuple[Tensor, Tensor]:
    """Split the 1797 images into those to learn from (1397) and those to compare with (400), always in the same way."""
    x = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1797))
    return x[order[:1397]], x[order[1397:]]
