"""Train a small convolutional network on handwritten digits, with one of two optimizers."""

from functools import partial

import torch
from data import digits
from net import Net, evaluate
from torch.nn import functional as F

import numb
from numb import numb_param, numb_queue

seed = 0
epochs = 6
batch_size = 32
lr = 0.01
width = 16
dropout = 0.2
opt = "adam"
numb_queue()
numb_param({"opt": opt, "lr": lr, "width": width, "dropout": dropout})
numb_param({"seed": seed, "epochs": epochs, "batch_size": batch_size})

torch.manual_seed(seed)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # a sweep has one process for each core

train, validation, _ = digits()
net = Net(width, dropout)
optimizer = {"adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9)}[opt](net.parameters(), lr)

x, y = train.tensors
for epoch in range(1, epochs + 1):
    net.train()
    for batch in torch.randperm(len(x)).split(batch_size):
        optimizer.zero_grad()
        F.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
    loss, acc = evaluate(net, *validation.tensors)
    numb.log(epoch=epoch, loss=loss, acc=acc)
    print(f"epoch {epoch:2}  validation loss {loss:.4f}  accuracy {acc:.4f}")

numb.run().results(acc=acc, val_loss=loss)  # of the last epoch, not of the best
