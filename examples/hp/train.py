"""Train a perceptron on handwritten digits, with hyperparameters of all three kinds."""

import torch
from data import digits
from net import Net, evaluate
from torch.nn import functional as F
from torch.utils.data import DataLoader

import numb
from numb import numb_param, numb_queue
from numb.hp import _

# Assignments above numb_queue().
epochs = 8
batch_size = 32
numb_queue()
numb_param({"epochs": epochs, "batch_size": batch_size})

# Keys of what numb_param gives back; "$build" describes an object.
params = numb_param({"seed": 0, "opt": {"$build": "torch.optim.Adam", "lr": 0.003, "weight_decay": 0.0}})

torch.manual_seed(params.seed)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # the last bit of a sum depends on the number of threads

train, validation, _test = digits()
net = Net()
optimizer = numb.build(params.opt, net.parameters())

for epoch in range(1, epochs + 1):
    net.train()
    for x, y in DataLoader(train, batch_size, shuffle=True):
        optimizer.zero_grad()
        # A call, where the value is used.
        F.cross_entropy(
            net(x), y, label_smoothing=_("smoothing", 0.0, help="of the labels", min=0.0, max=0.5)
        ).backward()
        optimizer.step()
    loss, accuracy = evaluate(net, *validation.tensors)
    print(f"epoch {epoch:2}  validation loss {loss:.4f}  accuracy {accuracy:.4f}")
