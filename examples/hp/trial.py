"""Measure a trained network on the digits that nothing was fitted to; numb gives it the shape that was trained."""

from data import digits
from net import Net, evaluate

from numb import numb_trial_result

_train, _validation, test = digits()
loss, accuracy = evaluate(Net(), *test.tensors)
print(f"test loss {loss:.4f}  accuracy {accuracy:.4f}")
numb_trial_result({"accuracy": accuracy, "loss": loss})
