"""Compare what a trained generator draws with digits that neither network has seen."""

import torch
from data import digits
from net import LATENT, Discriminator, Generator
from torch import Tensor

from numb import numb_queue, numb_trial_result

seed = 0
width = 128
dropout = 0.3
numb_queue()


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the squared Fréchet distance of the Gaussians fitted to two sets of images.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), as in the FID of Heusel et al. (2017), but of the pixels
    themselves: blind to what is not in their means and covariances.
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    trace_of_root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root).item()


def draw(images: Tensor) -> str:
    """Show images side by side in characters."""
    shades = " .:-=+*#%@"
    levels = ((images[:, 0] + 1) / 2 * (len(shades) - 1)).round().int()
    return "\n".join("".join(2 * shades[level] for level in row) for row in levels.transpose(0, 1).flatten(1))


train, test = digits()
generator, discriminator = Generator(width).eval(), Discriminator(width, dropout).eval()

torch.manual_seed(seed)
with torch.no_grad():
    fake = generator(torch.randn(len(test), LATENT))
    right = torch.cat([discriminator(test) > 0, discriminator(fake) < 0])

accuracy = right.float().mean().item()
distance, floor = frechet(train, fake), frechet(train, test)
print(draw(fake[:6]))
print(f"Fréchet distance to the real digits {distance:.2f}, where unseen real digits have {floor:.2f}")
print(f"the discriminator tells the two apart in {accuracy:.0%} of the cases, where guessing has 50%")
numb_trial_result({"frechet": distance, "frechet_of_real": floor, "discriminator_accuracy": accuracy})
