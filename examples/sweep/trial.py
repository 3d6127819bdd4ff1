"""Measure a trained network on the digits that neither training nor choosing has seen."""

from data import digits
from net import Net, evaluate

from numb import numb_queue, numb_trial_result

width = 16
dropout = 0.2
numb_queue()

_, _, test = digits()
loss, acc = evaluate(Net(width, dropout), *test.tensors)
print(f"test loss {loss:.4f}  accuracy {acc:.4f}")
numb_trial_result({"test_acc": acc, "test_loss": loss})
