"""Teach a recurrent network to spell, on one short essay."""

import torch
from data import alphabet, split
from net import CharLSTM, bits_per_character
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from numb import numb_param, numb_queue

seed = 0
epochs = 10
batch_size = 8
window = 64
lr = 0.01
hidden = 96
dropout = 0.3
numb_queue()
numb_param(
    {
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "window": window,
        "lr": lr,
        "hidden": hidden,
        "dropout": dropout,
    }
)

torch.manual_seed(seed)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # the last bit of a sum depends on the number of threads

text, tail = split()
net = CharLSTM(len(alphabet), hidden, dropout)
optimizer = torch.optim.Adam(net.parameters(), lr)

for epoch in range(1, epochs + 1):
    net.train()
    start = torch.randint(window, ()).item()  # cut the text elsewhere each time
    windows = text[start:].unfold(0, window + 1, window)
    for batch in windows[torch.randperm(len(windows))].split(batch_size):
        logits, _ = net(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    print(f"epoch {epoch:2}  tail {bits_per_character(net, tail):.3f} bits per character")
