"""Train a small convolutional network on handwritten digits."""

import torch
from data import digits
from net import Net, evaluate
from torch.nn import functional as F
from torch.utils.data import DataLoader

from numb import log, numb_param, numb_queue

seed = 0
epochs = 8
batch_size = 32
lr = 0.003
width = 16
dropout = 0.3
numb_queue()
numb_param({"seed": seed, "epochs": epochs, "batch_size": batch_size, "lr": lr, "width": width, "dropout": dropout})

torch.manual_seed(seed)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # the last bit of a sum depends on the number of threads

train, validation, _ = digits()
net = Net(width, dropout)
optimizer = torch.optim.Adam(net.parameters(), lr)

for epoch in range(1, epochs + 1):
    net.train()
    for x, y in DataLoader(train, batch_size, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    loss, accuracy = evaluate(net, *validation.tensors)
    log(epoch=epoch, loss=loss, accuracy=accuracy)
    print(f"epoch {epoch:2}  validation loss {loss:.4f}  accuracy {accuracy:.4f}")
