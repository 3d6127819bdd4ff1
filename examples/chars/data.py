"""A short essay as a row of numbers, one for each character."""

from pathlib import Path

import torch
from torch import Tensor

essay = Path(__file__).with_name("text.txt").read_text(encoding="utf-8")
text = "\n".join(" ".join(paragraph.split()) for paragraph in essay.split("\n\n"))
alphabet = sorted(set(text))


def encode(characters: str) -> Tensor:
    return torch.tensor([alphabet.index(character) for character in characters])


def decode(codes: list[int]) -> str:
    return "".join(alphabet[code] for code in codes)


def split() -> tuple[Tensor, Tensor]:
    """Return the first nine tenths of the text, to learn from, and the tail, to be judged by."""
    cut = len(text) * 9 // 10
    return encode(text[:cut]), encode(text[cut:])
