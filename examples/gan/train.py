"""Train a generator of digits against a discriminator."""

import torch
from data import digits
from net import LATENT, Discriminator, Generator
from torch.nn import functional as F

from numb import numb_param, numb_queue

seed = 0
epochs = 20
batch_size = 100
lr = 0.003
beta1 = 0.5
width = 128
dropout = 0.3
numb_queue()
numb_param(
    {
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "beta1": beta1,
        "width": width,
        "dropout": dropout,
    }
)

torch.manual_seed(seed)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # the last bit of a sum depends on the number of threads

images, _ = digits()
generator, discriminator = Generator(width), Discriminator(width, dropout)
generator_optimizer = torch.optim.Adam(generator.parameters(), lr, (beta1, 0.999))
discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr, (beta1, 0.999))

for epoch in range(1, epochs + 1):
    generator_loss = discriminator_loss = 0.0
    batches = images[torch.randperm(len(images))].split(batch_size)
    for real in batches:
        fake = generator(torch.randn(len(real), LATENT))

        loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
        discriminator_optimizer.zero_grad()
        loss.backward()
        discriminator_optimizer.step()
        discriminator_loss += loss.item() / len(batches)

        loss = F.softplus(-discriminator(fake)).mean()
        generator_optimizer.zero_grad()
        loss.backward()
        generator_optimizer.step()
        generator_loss += loss.item() / len(batches)
    print(f"epoch {epoch:2}  loss: generator {generator_loss:.3f}  discriminator {discriminator_loss:.3f}")
