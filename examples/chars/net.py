"""A recurrent network that guesses the next character, and how it is judged."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from numb import numb_model

State = tuple[Tensor, Tensor]


class CharLSTM(nn.Module):
    @numb_model(torch.zeros(1, 8, dtype=torch.long))
    def __init__(self, characters: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, hidden // 4)
        self.lstm = nn.LSTM(hidden // 4, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, characters)

    def forward(self, codes: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the logits of the character after each of *codes* (batch, time), and the state to go on from."""
        features, state = self.lstm(self.embedding(codes), state)
        return self.head(self.dropout(features)), state


@torch.no_grad()
def bits_per_character(net: CharLSTM, codes: Tensor) -> float:
    """Return the mean of -log2 p(next character) over *codes*, read from its start to its end."""
    net.eval()
    logits, _ = net(codes[None, :-1])
    return F.cross_entropy(logits[0], codes[1:]).item() / math.log(2)


@torch.no_grad()
def sample(net: CharLSTM, prompt: Tensor, length: int, temperature: float) -> list[int]:
    """Continue *prompt* by *length* characters."""
    net.eval()
    codes = prompt.tolist()
    logits, state = net(prompt[None])
    for _ in range(length):
        code = torch.multinomial((logits[0, -1] / temperature).softmax(0), 1)
        codes.append(code.item())
        logits, state = net(code[None], state)
    return codes
