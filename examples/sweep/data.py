"""The handwritten digits of scikit-learn: 1797 grey images of 8x8 pixels."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset


def digits() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Split into train (1200), validation (297) and test (300), always in the same way."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1797))
    train, validation, test = order.split([1200, 297, 300])
    return (
        TensorDataset(x[train], y[train]),
        TensorDataset(x[validation], y[validation]),
        TensorDataset(x[test], y[test]),
    )
