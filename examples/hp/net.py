"""A perceptron whose shape is decided where it is built, and how it is judged."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from numb import numb_model
from numb.hp import _


class Net(nn.Module):
    @numb_model(torch.zeros(1, 1, 8, 8))
    def __init__(self) -> None:
        super().__init__()
        width = _("net.width", 64, help="units of a hidden layer", min=1, max=1024)
        sizes = [64] + [width] * _("net.layers", 2, help="hidden layers", min=1, max=8)
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        dropout = nn.Dropout(_("net.dropout", 0.2, help="before the last layer", min=0.0, max=0.9))
        self.layers = nn.Sequential(nn.Flatten(), *hidden, dropout, nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@torch.no_grad()
def evaluate(net: Net, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the mean cross-entropy, in nats, and the accuracy."""
    net.eval()
    logits = net(x)
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()
