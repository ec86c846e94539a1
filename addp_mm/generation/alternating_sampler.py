# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generation by alternating between tokens and pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from addp_mm.diffusion import (
    annealed_temperature,
    corrupt,
    cosine_ratio,
    expected_latents,
    linear_ratio,
    mask_length,
    remask,
    sample_ids,
)
from addp_mm.generation.sampling_state import Samples, SamplingStep, join_steps

SCHEDULES: dict[str, Callable[[int, int], float]] = dict(cosine=cosine_ratio, linear=linear_ratio)


class Tokenizer(Protocol):
    """The attributes of a tokenizer that the sampler uses."""

    @property
    def codebook(self) -> Tensor:
        """Vectors of the codes, (K, D)."""

    def lookup(self, ids: Tensor, height: int, width: int) -> Tensor:
        """Latents (B, D, height, width) of ids (B, L)."""


class AlternatingModel(Protocol):
    """The attributes of a model, such as ADDP, that the sampler uses."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""

    def tokenize(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, L) and latents (B, D, h, w) of images (B, C, H, W) in [0, 1].

        In float32, also under autocast.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, C, H, W), about [0, 1], of latents (B, D, h, w).

        In float32, also under autocast.
        """

    def predict_tokens(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits over the codes, (B, L, codebook_size), from pixels and visible tokens."""

    def expected_latents(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Latents (B, D, h, w) that the predictor expects from visible tokens, for the start."""


def image_generators(num_images: int, generator: torch.Generator) -> list[torch.Generator]:
    """One random stream for each image, all from one number drawn from ``generator``.

    An image's noise depends on its index only, so that batches can have any size. A CPU generator
    uses its seed modulo 2**32. The stride between seeds is odd, so no two images of a run have the
    same seed.

    Args:
        num_images: Number of images.
        generator: Advanced by one number.
    """
    base = int(torch.randint(2**32, (), generator=generator, device=generator.device))
    return [torch.Generator().manual_seed((base + index * 0x9E3779B1) % 2**32) for index in range(num_images)]


class AlternatingSampler:
    """Generates images by alternating ADDP's two directions (arXiv 2306.05423, section 3.3).

    Each step predicts all masked tokens from pixels and visible tokens, keeps the most confident
    draws, masks the others again and decodes the next pixels. Masked positions are decoded from the
    mean code under the prediction. Details follow the released code.

    The sampler uses only the given generators, one for each image. Tensors are on the device of the
    model's codebook. The same seed gives the same images for every batch size, up to the rounding
    of the kernels that a device selects for a batch size.

    Args:
        model: Has ``predict_tokens``, ``expected_latents`` and ``tokenizer``, and is in eval mode.
        grid_size: (h, w) in tokens.
        num_steps: Number of steps N. Defaults to 20.
        schedule: 'cosine', 'linear', or a function from (step, N) to the share of positions that
            stay masked. Defaults to 'cosine'.
        temperature: Scale of the Gumbel noise on the confidence. Defaults to 6.
        anneal: Whether the temperature falls to zero, as ``temperature * (1 - (step + 1) / N)``, or
            stays constant. Defaults to True.
        top_p: Ids are drawn from the most likely codes that together reach this probability.
            Defaults to 1: from all codes.

    Raises:
        ValueError: An option is out of its range, or the schedule's name is unknown.

    Example:
        >>> sampler = AlternatingSampler(model, grid_size=(8, 8), num_steps=8)  # doctest: +SKIP
        >>> sampler.run(4, torch.Generator().manual_seed(0)).images.shape  # doctest: +SKIP
        torch.Size([4, 3, 64, 64])
    """

    def __init__(
        self,
        model: AlternatingModel,
        grid_size: tuple[int, int],
        num_steps: int = 20,
        schedule: str | Callable[[int, int], float] = 'cosine',
        temperature: float = 6.0,
        anneal: bool = True,
        top_p: float = 1.0,
    ) -> None:
        if isinstance(schedule, str) and schedule not in SCHEDULES:
            raise ValueError(f'schedule must be one of {sorted(SCHEDULES)} or a function, got {schedule!r}')
        if num_steps < 1 or temperature < 0 or not math.isfinite(temperature) or not 0 < top_p <= 1:
            raise ValueError(
                'num_steps must be at least 1, temperature finite and not negative, top_p in (0, 1]; got '
                f'num_steps={num_steps}, temperature={temperature}, top_p={top_p}'
            )
        if len(grid_size) != 2 or min(grid_size) < 1:
            raise ValueError(f'grid_size must be two positive numbers (h, w), got {grid_size}')
        self.model = model
        self.grid_size = tuple(grid_size)
        self.num_steps = num_steps
        self.ratio = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
        self.temperature, self.anneal, self.top_p = temperature, anneal, top_p

    @property
    def num_tokens(self) -> int:
        """Number of tokens L of an image."""
        return self.grid_size[0] * self.grid_size[1]

    @torch.no_grad()
    def start(self, ids: Tensor, mask: Tensor) -> SamplingStep:
        """State before the first step.

        Args:
            ids: (B, L) int64; masked positions are ignored.
            mask: (B, L) bool, True where to generate.

        Raises:
            ValueError: A shape does not fit the grid, or the model is in training mode.
        """
        if getattr(self.model, 'training', False):
            raise ValueError('the model is in training mode, where dropout changes the samples: call model.eval()')
        if ids.dim() != 2 or ids.shape[1] != self.num_tokens or mask.shape != ids.shape:
            raise ValueError(
                f'ids and mask must be (B, {self.num_tokens}) for grid {self.grid_size}, '
                f'got {tuple(ids.shape)} and {tuple(mask.shape)}'
            )
        confidence = torch.zeros(ids.shape, device=ids.device).masked_fill(~mask, math.inf)
        # There are no pixels yet, so the predictor gives the latents of masked positions. Only the
        # start needs it.
        images = self._decode(ids, mask, self.model.expected_latents(ids, mask))
        return SamplingStep(0, ids, mask, images, confidence, mask.sum(1))

    @torch.no_grad()
    def step(self, state: SamplingStep, generators: Sequence[torch.Generator]) -> SamplingStep:
        """Take one step.

        Args:
            state: State of B images with ``index`` below ``num_steps``.
            generators: One for each image.

        Raises:
            ValueError: The model's logits are non-finite.
        """
        ratio = self.ratio(state.index, self.num_steps)
        logits = self.model.predict_tokens(state.images, state.ids, state.mask)
        if not logits.isfinite().all():
            raise ValueError(
                'the model gives non-finite logits (NaN or Inf): its weights are non-finite (did the training '
                'stop with a non-finite loss?), or they exceed the range of float16'
            )
        drawn, log_probs = sample_ids(logits, generators, self.top_p)
        ids = torch.where(state.mask, drawn, state.ids)
        # A schedule given as a function may rise, but known positions must keep their ids.
        length = torch.minimum(mask_length(state.num_masked, ratio), state.mask.sum(1))
        mask = remask(log_probs, state.mask, length, self._temperature(state.index), generators)
        if state.index + 1 == self.num_steps:
            mask = torch.zeros_like(mask)
        confidence = log_probs.masked_fill(~state.mask, math.inf)
        with torch.autocast(logits.device.type, enabled=False):
            codebook = self.model.tokenizer.codebook.float()
            soft = expected_latents(logits.float().softmax(-1), codebook, *self.grid_size)
        images = self._decode(ids, mask, soft)
        return SamplingStep(state.index + 1, ids, mask, images, confidence, state.num_masked)

    def trajectory(self, ids: Tensor, mask: Tensor, generators: Sequence[torch.Generator]) -> Iterator[SamplingStep]:
        """All ``num_steps + 1`` states of one batch, from the start to the finished images."""
        state = self.start(ids, mask)
        yield state
        for _ in range(self.num_steps):
            state = self.step(state, generators)
            yield state

    def blank(self, num_images: int) -> tuple[Tensor, Tensor]:
        """Ids and mask, (B, L) each, of images without known tokens."""
        device = self.model.tokenizer.codebook.device
        shape = (num_images, self.num_tokens)
        return torch.zeros(shape, dtype=torch.int64, device=device), torch.ones(shape, dtype=torch.bool, device=device)

    def run(
        self,
        num_images: int,
        generator: torch.Generator,
        batch_size: int | None = None,
        keep_steps: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """Generate images without condition.

        Args:
            num_images: Number of images N.
            generator: Source of all noise.
            batch_size: Images at a time. Defaults to None: all.
            keep_steps: Whether to keep the state after each step. Defaults to False.
            progress: Called after each step with the number of images in the batch. Defaults to
                None.

        Returns:
            The finished images, on the model's device.
        """
        ids, mask = self.blank(num_images)
        return self.complete(ids, mask, image_generators(num_images, generator), batch_size, keep_steps, progress)

    @torch.no_grad()
    def inpaint(
        self,
        images: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        batch_size: int | None = None,
        keep_steps: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """Generate the masked part of each image.

        Args:
            images: (B, C, H, W) in [0, 1].
            mask: (B, L) bool over the tokens, True where to generate. See :func:`token_mask` for
                masks over pixels.
            generator: Source of all noise.
            batch_size: See :meth:`run`. Defaults to None.
            keep_steps: See :meth:`run`. Defaults to False.
            progress: See :meth:`run`. Defaults to None.

        Returns:
            The finished images, on the model's device. Known positions keep their tokens; their
            pixels are decoded together with the new tokens next to them.
        """
        device = self.model.tokenizer.codebook.device
        batch_size = _checked_batch_size(batch_size, len(images))
        ids = torch.cat([self.model.tokenize(part.to(device))[0] for part in images.split(batch_size)])
        generators = image_generators(len(images), generator)
        return self.complete(ids, mask.to(device), generators, batch_size, keep_steps, progress)

    def complete(
        self,
        ids: Tensor,
        mask: Tensor,
        generators: Sequence[torch.Generator],
        batch_size: int | None = None,
        keep_steps: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """Generate the masked tokens batch by batch; :meth:`run` and :meth:`inpaint` call this.

        Args:
            ids: (N, L) int64; masked positions are ignored.
            mask: (N, L) bool, True where to generate.
            generators: One for each image.
            batch_size: See :meth:`run`. Defaults to None.
            keep_steps: See :meth:`run`. Defaults to False.
            progress: See :meth:`run`. Defaults to None.

        Returns:
            The finished images, on the model's device.
        """
        batch_size = _checked_batch_size(batch_size, len(ids))
        last, kept = [], []
        for begin in range(0, len(ids), batch_size):
            part = slice(begin, begin + batch_size)
            steps = []
            for state in self.trajectory(ids[part], mask[part], generators[part]):
                if keep_steps:
                    steps.append(state.cpu())
                if progress is not None and state.index:
                    progress(len(state.ids))
            last.append(state)
            kept.append(steps)
        return Samples(
            torch.cat([state.images for state in last]),
            torch.cat([state.ids for state in last]),
            tuple(join_steps(states) for states in zip(*kept, strict=True)),
        )

    def _temperature(self, index: int) -> float:
        return annealed_temperature(index, self.num_steps, self.temperature) if self.anneal else self.temperature

    def _decode(self, ids: Tensor, mask: Tensor, soft: Tensor) -> Tensor:
        """Pixels of ids (B, L), with soft latents (B, D, h, w) at masked positions."""
        latents = corrupt(self.model.tokenizer.lookup(ids, *self.grid_size), soft, mask)
        return self.model.decode(latents).clamp(0, 1)


def _checked_batch_size(batch_size: int | None, num_images: int) -> int:
    batch_size = num_images if batch_size is None else batch_size
    if batch_size < 1 or num_images < 1:
        raise ValueError(f'number of images and batch size must be at least 1, got {num_images} and {batch_size}')
    return batch_size


def token_mask(pixel_mask: Tensor, stride: int) -> Tensor:
    """Convert a mask over pixels to a mask over tokens: a token is masked if any of its pixels is.

    Args:
        pixel_mask: (B, H, W) bool, True where to generate.
        stride: Side of a token in pixels.

    Returns:
        (B, H·W / stride²) bool.

    Raises:
        ValueError: A side is not a multiple of the stride.
    """
    if pixel_mask.dim() != 3 or pixel_mask.shape[1] % stride or pixel_mask.shape[2] % stride:
        raise ValueError(
            f'a pixel mask must be (B, H, W) with sides that are multiples of {stride}, got {tuple(pixel_mask.shape)}'
        )
    return torch.nn.functional.max_pool2d(pixel_mask[:, None].float(), stride).flatten(1).bool()
