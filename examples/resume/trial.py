"""Measure a trained network on the digits that nothing was fitted to."""

from data import digits
from net import Net, evaluate

from numb import numb_queue, numb_trial_result

width = 16
dropout = 0.3
numb_queue()

_, _, test = digits()
loss, accuracy = evaluate(Net(width, dropout), *test.tensors)
print(f"test loss {loss:.4f}  accuracy {accuracy:.4f}")
numb_trial_result({"accuracy": accuracy, "loss": loss})
