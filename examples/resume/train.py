"""Train on handwritten digits, and go on where it was cut off: in the middle of a round, step by step the same."""

import torch
from batches import Batches
from data import digits
from net import Net, evaluate
from torch.nn import functional as F

import numb
from numb import numb_param, numb_queue

seed = 0
steps = 300
every = 25
batch_size = 32
lr = 0.003
width = 16
dropout = 0.3
numb_queue()
numb_param({"seed": seed, "steps": steps, "batch_size": batch_size, "lr": lr, "width": width, "dropout": dropout})

torch.manual_seed(seed)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # the last bit of a sum depends on the number of threads

train, validation, _ = digits()
net = Net(width, dropout)
optimizer = torch.optim.Adam(net.parameters(), lr)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
batches = Batches(train, batch_size)

run = numb.run()
run.track(net=net, optimizer=optimizer, scheduler=scheduler, batches=batches)
for step in range(run.restore().step + 1, steps + 1):
    net.train()
    x, y = next(batches)
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % every == 0 or run.should_stop:
        _, accuracy = evaluate(net, *validation.tensors)
        print(f"step {step:3}  loss {loss.item():.6f}  validation accuracy {accuracy:.4f}")
        run.checkpoint(step=step, accuracy=accuracy)
    if run.should_stop:
        break
