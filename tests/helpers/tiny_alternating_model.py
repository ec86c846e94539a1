# Copyright (c) addp_mm contributors. Apache-2.0.
"""An alternating model of a few thousand weights: tokenizer, predictor and decoder in one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TinyTokenizer(nn.Module):
    stride = 4

    def __init__(self, codebook_size: int = 16, dims: int = 6) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(codebook_size, dims))
        self.encoder = nn.Conv2d(3, dims, self.stride, self.stride)
        self.decoder = nn.ConvTranspose2d(dims, 3, self.stride, self.stride)

    @property
    def codebook(self) -> Tensor:
        return self.codes

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.encoder(images)
        ids = torch.cdist(latents.flatten(2).transpose(1, 2), self.codes[None]).argmin(-1)
        return ids, self.lookup(ids, *latents.shape[-2:])

    def lookup(self, ids: Tensor, height: int, width: int) -> Tensor:
        return F.embedding(ids, self.codes).transpose(1, 2).unflatten(2, (height, width))

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(latents))


class TinyAlternatingModel(nn.Module):
    grid_size = (4, 3)

    def __init__(self, codebook_size: int = 16, dims: int = 8) -> None:
        super().__init__()
        self.tokenizer = TinyTokenizer(codebook_size)
        self.embed = nn.Embedding(codebook_size + 1, dims)
        self.pos_embed = nn.Parameter(torch.randn(self.grid_size[0] * self.grid_size[1], dims))
        self.pixels = nn.Conv2d(3, dims, self.tokenizer.stride, self.tokenizer.stride)
        self.mix = nn.TransformerEncoderLayer(dims, 2, 16, batch_first=True)
        self.head = nn.Linear(dims, codebook_size)

    def _mixed(self, ids: Tensor, mask: Tensor, extra: Tensor | float = 0.0) -> Tensor:
        words = self.embed(ids.masked_fill(mask, self.embed.num_embeddings - 1))
        return 3 * self.head(self.mix(words + self.pos_embed + extra))

    def tokenize(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(images.device.type, enabled=False):
            return self.tokenizer.encode(images.float())

    def decode(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            return self.tokenizer.decode(latents.float())

    def predict_tokens(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return self._mixed(ids, mask, self.pixels(images).flatten(2).transpose(1, 2))

    def expected_latents(self, ids: Tensor, mask: Tensor) -> Tensor:
        latents = self._mixed(ids, mask).softmax(-1) @ self.tokenizer.codebook
        return latents.transpose(1, 2).unflatten(2, self.grid_size)


class TinyConditionalModel(TinyAlternatingModel):
    """With class slots; ``batches`` records the batch size of each call of ``predict_tokens``."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        # as in ADDP, "no class" has a slot of its own
        self.class_embed = nn.Parameter(4 * torch.randn(self.num_classes + 1, 1, self.pos_embed.shape[1]))
        self.batches: list[int] = []

    def _class(self, labels: Tensor | None) -> Tensor:
        return self.class_embed[-1] if labels is None else self.class_embed[labels]

    def predict_tokens(self, images: Tensor, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        self.batches.append(len(images))
        return self._mixed(ids, mask, self.pixels(images).flatten(2).transpose(1, 2) + self._class(labels))

    def expected_latents(self, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        latents = self._mixed(ids, mask, self._class(labels)).softmax(-1) @ self.tokenizer.codebook
        return latents.transpose(1, 2).unflatten(2, self.grid_size)


def tiny_conditional_model(seed: int = 0) -> TinyConditionalModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyConditionalModel().eval()


def tiny_model(seed: int = 0) -> TinyAlternatingModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyAlternatingModel().eval()
