"""A small convolutional network, and how it is judged."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from numb import numb_model


class Net(nn.Module):
    @numb_model(torch.zeros(1, 1, 8, 8))
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width * 2 * 2, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


@torch.no_grad()
def evaluate(net: Net, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the mean cross-entropy, in nats, and the accuracy."""
    net.eval()
    logits = net(x)
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()
