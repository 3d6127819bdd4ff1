"""Measure what a trained network makes of the end of the essay, and let it write."""

import torch
from data import alphabet, decode, encode, split
from net import CharLSTM, bits_per_character, sample

from numb import numb_queue, numb_trial_result

seed = 0
hidden = 96
dropout = 0.3
numb_queue()

_, tail = split()
net = CharLSTM(len(alphabet), hidden, dropout)

torch.manual_seed(seed)
print(decode(sample(net, encode("The notebook "), length=300, temperature=0.7)))

bits = bits_per_character(net, tail)
print(f"\n{bits:.3f} bits per character on the tail of {len(tail)} characters")
numb_trial_result({"bits_per_character": bits})
