# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generation by alternating between tokens and pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from addp_mm.diffusion import corrupt, expected_latents, halton_order, mask_length, remask, remask_in_order, sample_ids
from addp_mm.diffusion.token_space import NO_CLASS
from addp_mm.errors import ConfigError, UserError
from addp_mm.generation.alternating_model import AlternatingModel, ConditionalModel
from addp_mm.generation.class_labels import class_labels
from addp_mm.generation.guidance import Guidance, guided_logits
from addp_mm.generation.image_streams import image_generators
from addp_mm.generation.sampling_schedule import SamplingSchedule
from addp_mm.generation.sampling_state import Samples, SamplingStep, join_steps
from addp_mm.generation.trajectories.trajectories import KNOWN, Trajectories, join_trajectories

Labels = Tensor | Sequence[int] | None


class NonFiniteLogitsError(UserError, ValueError):
    """A model gives logits that are NaN or Inf."""


class AlternatingSampler:
    """Generates images by alternating ADDP's two directions (arXiv 2306.05423, section 3.3).

    Each step predicts all masked tokens from pixels and visible tokens, keeps those draws that the
    schedule selects, masks the others again and decodes the next pixels. Masked positions are
    decoded from the mean code under the prediction. Details follow the released code.

    The sampler uses only the given generators, one for each image. Tensors are on the device of the
    model's codebook. The same seed gives the same images for every batch size, up to the rounding
    of the kernels that a device selects for a batch size.

    Args:
        model: Has ``predict_tokens``, ``expected_latents`` and ``tokenizer``, and is in eval mode.
        grid_size: (h, w) in tokens.
        schedule: What each step does. Defaults to the published schedule.
        guidance: Classifier-free guidance for images with a class. Each step with a weight other
            than 0 calls the model once, with a batch of twice the size. The start is conditional
            without guidance. Defaults to None: no guidance.
        compile: Arguments of ``torch.compile`` for the model's calls in a step, such as
            ``dict(mode='reduce-overhead')`` for CUDA graphs. Each is compiled once for all steps,
            and again for another batch size: guidance doubles the batch. Under autocast the last
            decoding is compiled, too, because it has no autocast. The start is not compiled.
            Defaults to None: nothing is compiled.

    Raises:
        ConfigError: The schedule has more steps than an image has tokens, the guidance has another
            type, or the model has no classes for it.

    Example:
        >>> sampler = AlternatingSampler(model, (8, 8), SamplingSchedule(8))  # doctest: +SKIP
        >>> sampler.run(4, torch.Generator().manual_seed(0)).images.shape  # doctest: +SKIP
        torch.Size([4, 3, 64, 64])
    """

    def __init__(
        self,
        model: AlternatingModel,
        grid_size: tuple[int, int],
        schedule: SamplingSchedule = SamplingSchedule(),  # noqa: B008  # it is immutable
        guidance: Guidance | None = None,
        compile: Mapping[str, Any] | None = None,
    ) -> None:
        if len(grid_size) != 2 or min(grid_size) < 1:
            raise ValueError(f'grid_size must be two positive numbers (h, w), got {grid_size}')
        num_tokens = math.prod(grid_size)
        if schedule.num_steps > num_tokens:
            raise ConfigError(
                f'num_steps must be at most {num_tokens}, the number of tokens of an image '
                f'({grid_size[0]}x{grid_size[1]}), got {schedule.num_steps}: more steps have nothing to do'
            )
        if not isinstance(guidance, Guidance | None):
            raise ConfigError(f'guidance must be a Guidance, such as Guidance(scale=2.0), got {guidance!r}')
        self.num_classes = getattr(model, 'num_classes', 0)  # a ConditionalModel has it
        if guidance is not None and guidance.scale and not self.num_classes:
            raise ConfigError(
                f'guidance of scale {guidance.scale} needs a model that was trained with classes; this one has none '
                '(num_classes is 0)'
            )
        self.model = model
        self.grid_size = (grid_size[0], grid_size[1])
        self.schedule, self.guidance = schedule, guidance or Guidance()
        self._compiled: dict[str, Callable[..., Tensor]] = {}
        if compile is not None:
            self._compiled = {
                name: torch.compile(getattr(model, name), **compile) for name in ('predict_tokens', 'decode')
            }
        self._order = halton_order(*grid_size) if schedule.order == 'halton' else None

    @property
    def num_tokens(self) -> int:
        """Number of tokens L of an image."""
        return self.grid_size[0] * self.grid_size[1]

    @torch.no_grad()
    def start(self, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> SamplingStep:
        """State before the first step.

        Args:
            ids: (B, L) int64; masked positions are ignored.
            mask: (B, L) bool, True where to generate.
            labels: Classes (B,) int64; -1 is "no class". Defaults to None: no class for all.

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
        images = self._blank_pixels(ids, mask, labels) if mask.all() else self._first_pixels(ids, mask, labels)
        kept_at = torch.full_like(ids, KNOWN)
        return SamplingStep(0, ids, mask, images, confidence, mask.sum(1), kept_at)

    @torch.no_grad()
    def step(
        self, state: SamplingStep, generators: Sequence[torch.Generator], labels: Tensor | None = None
    ) -> SamplingStep:
        """Take one step.

        Args:
            state: State of B images with ``index`` below ``num_steps``.
            generators: One for each image.
            labels: See :meth:`start`. Defaults to None.

        Raises:
            NonFiniteLogitsError: The model's logits are NaN or Inf.
        """
        logits = self.logits(state, labels)
        return self.next_state(state, logits, *self.draw(state, logits, generators))

    @torch.no_grad()
    def draw(
        self, state: SamplingStep, logits: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw ids at the masked positions of a state, and decide which of them stay.

        Args:
            state: State of B images with ``index`` below ``num_steps``.
            logits: (B, L, K).
            generators: One for each image.

        Returns:
            Ids (B, L), positions that stay masked (B, L), and the log-probability of each draw
            (B, L): the last arguments of :meth:`next_state`.
        """
        schedule = self.schedule
        drawn, log_probs = sample_ids(logits, generators, schedule.top_p, top_k=schedule.top_k)
        ids = torch.where(state.mask, drawn, state.ids)
        # at least one position stays masked until the last step, unless all are known
        length = torch.minimum(mask_length(state.num_masked, schedule.shares[state.index]), state.mask.sum(1))
        if state.index + 1 == schedule.num_steps:
            length = torch.zeros_like(length)
        if self._order is None:
            mask = remask(log_probs, state.mask, length, schedule.noise_scale(state.index), generators)
        else:
            mask = remask_in_order(self._order.to(state.mask.device), state.mask, length)
        return ids, mask, log_probs

    @torch.no_grad()
    def logits(self, state: SamplingStep, labels: Tensor | None = None) -> Tensor:
        """Logits of the next ids, under guidance where an image has a class.

        Args:
            state: State of B images.
            labels: See :meth:`start`. Defaults to None.

        Returns:
            (B, L, codebook_size).

        Raises:
            NonFiniteLogitsError: They are NaN or Inf.
        """
        logits = self._guided_logits(state, labels)
        if not logits.isfinite().all():
            raise NonFiniteLogitsError(
                'the model gives non-finite logits (NaN or Inf): its weights are non-finite (did the training '
                'stop with a non-finite loss?), or they exceed the range of float16'
            )
        return logits

    @torch.no_grad()
    def next_state(
        self, state: SamplingStep, logits: Tensor, ids: Tensor, mask: Tensor, log_probs: Tensor | None = None
    ) -> SamplingStep:
        """The state after a step, with the next pixels.

        Args:
            state: State of B images before the step.
            logits: Result of :meth:`logits`, (B, L, K).
            ids: Ids after the step, (B, L) int64; those of masked positions have no effect.
            mask: Positions that stay masked, (B, L) bool.
            log_probs: Log-probability of each id, (B, L). Defaults to None: they are computed from
                the logits.
        """
        if log_probs is None:
            log_probs = logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        confidence = log_probs.masked_fill(~state.mask, math.inf)
        kept_at = torch.where(state.mask & ~mask, state.index, state.kept_at)
        if state.index + 1 == self.schedule.num_steps:
            images = self.finished_pixels(ids)
        else:
            with torch.autocast(logits.device.type, enabled=False):
                codebook = self.model.tokenizer.codebook.float()
                soft = expected_latents(logits.float().softmax(-1), codebook, *self.grid_size)
            latents = corrupt(self.model.tokenizer.lookup(ids, *self.grid_size), soft, mask)
            images = self._call('decode', latents).clamp(0, 1)
        return SamplingStep(state.index + 1, ids, mask, images, confidence, state.num_masked, kept_at)

    @torch.no_grad()
    def finished_pixels(self, ids: Tensor) -> Tensor:
        """Pixels of ids (B, L), as after the last step: in float32, also under autocast.

        Returns:
            (B, C, H, W) in [0, 1].
        """
        with torch.autocast(ids.device.type, enabled=False):
            return self._call('decode', self.model.tokenizer.lookup(ids, *self.grid_size)).clamp(0, 1)

    def trajectory(
        self, ids: Tensor, mask: Tensor, generators: Sequence[torch.Generator], labels: Tensor | None = None
    ) -> Iterator[SamplingStep]:
        """All ``num_steps + 1`` states of one batch, from the start to the finished images."""
        state = self.start(ids, mask, labels)
        yield state
        for _ in range(self.schedule.num_steps):
            state = self.step(state, generators, labels)
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
        labels: Labels = None,
    ) -> Samples:
        """Generate whole images.

        Args:
            num_images: Number of images N.
            generator: Source of all noise.
            batch_size: Images at a time. Defaults to None: all.
            keep_steps: Whether to keep the state after each step. Defaults to False.
            progress: Called after each step with the number of images in the batch. Defaults to
                None.
            labels: Class of each image; -1 is "no class". Defaults to None: no class for all.

        Returns:
            The finished images, on the model's device.
        """
        ids, mask = self.blank(num_images)
        generators = image_generators(num_images, generator)
        return self.complete(ids, mask, generators, labels, batch_size, keep_steps, progress)

    @torch.no_grad()
    def inpaint(
        self,
        images: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        batch_size: int | None = None,
        keep_steps: bool = False,
        progress: Callable[[int], None] | None = None,
        labels: Labels = None,
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
            labels: See :meth:`run`. Defaults to None.

        Returns:
            The finished images, on the model's device. Known positions keep their tokens; their
            pixels are decoded together with the new tokens next to them.
        """
        device = self.model.tokenizer.codebook.device
        batch_size = check_batch_size(batch_size, len(images))
        ids = torch.cat([self.model.tokenize(part.to(device))[0] for part in images.split(batch_size)])
        generators = image_generators(len(images), generator)
        return self.complete(ids, mask.to(device), generators, labels, batch_size, keep_steps, progress)

    def complete(
        self,
        ids: Tensor,
        mask: Tensor,
        generators: Sequence[torch.Generator],
        labels: Labels = None,
        batch_size: int | None = None,
        keep_steps: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """Generate the masked tokens batch by batch; :meth:`run` and :meth:`inpaint` call this.

        Args:
            ids: (N, L) int64; masked positions are ignored.
            mask: (N, L) bool, True where to generate.
            generators: One for each image.
            labels: See :meth:`run`. Defaults to None.
            batch_size: See :meth:`run`. Defaults to None.
            keep_steps: See :meth:`run`. Defaults to False.
            progress: See :meth:`run`. Defaults to None.

        Returns:
            The finished images, on the model's device.

        Raises:
            ConfigError: There is not one label for each image, or guidance is given without labels.
            ClassLabelError: The model does not have these classes.
        """
        batch_size = check_batch_size(batch_size, len(ids))
        if labels is None and self.guidance.scale:
            raise ConfigError(
                f'guidance of scale {self.guidance.scale} needs labels: give a class for each image, or -1 for none'
            )
        classes = class_labels(labels, len(ids), self.num_classes)
        last, kept, trajectories = [], [], []
        for begin in range(0, len(ids), batch_size):
            part = slice(begin, begin + batch_size)
            steps = []
            own = None if classes is None else classes[part].to(ids.device)
            log_probs = torch.zeros(mask[part].shape, device=ids.device)
            for state in self.trajectory(ids[part], mask[part], generators[part], own):
                if keep_steps:
                    steps.append(state.cpu())
                if state.index:
                    log_probs = state.confidence.where(state.kept_at == state.index - 1, log_probs)
                    if progress is not None:
                        progress(len(state.ids))
            labels_of = torch.full((len(state.ids),), NO_CLASS) if own is None else own
            trajectories.append(Trajectories(state.ids, state.kept_at, log_probs, labels_of).to('cpu'))
            last.append(state)
            kept.append(steps)
        return Samples(
            torch.cat([state.images for state in last]),
            torch.cat([state.ids for state in last]),
            tuple(join_steps(states) for states in zip(*kept, strict=True)),
            join_trajectories(trajectories),
        )

    @property
    def _conditional(self) -> ConditionalModel:
        return cast('ConditionalModel', self.model)

    def _guided_logits(self, state: SamplingStep, labels: Tensor | None) -> Tensor:
        seen = (state.images, state.ids, state.mask)
        if labels is None:
            return self._call('predict_tokens', *seen)
        weight = self.guidance.weight(state.index, self.schedule.num_steps)
        without = labels == NO_CLASS
        if weight == 0 or without.all():
            return self._call('predict_tokens', *seen, labels=labels)
        images, ids, mask = (torch.cat([part, part]) for part in seen)
        both = torch.cat([labels, torch.full_like(labels, NO_CLASS)])
        conditional, unconditional = self._call('predict_tokens', images, ids, mask, labels=both).chunk(2)
        guided = guided_logits(conditional, unconditional, weight)
        return torch.where(without[:, None, None], unconditional.float(), guided)

    def _blank_pixels(self, ids: Tensor, mask: Tensor, labels: Tensor | None) -> Tensor:
        """Pixels before the first step if all tokens are masked, computed once for each class."""
        if labels is None:
            return self._first_pixels(ids[:1], mask[:1], None).expand(len(ids), -1, -1, -1)
        classes, rows = labels.unique(return_inverse=True)
        return self._first_pixels(ids[: len(classes)], mask[: len(classes)], classes)[rows]

    def _first_pixels(self, ids: Tensor, mask: Tensor, labels: Tensor | None) -> Tensor:
        """Pixels before the first step.

        There are none to predict from, so the predictor gives the latents of masked positions. Only
        the start needs it.
        """
        if labels is None:
            soft = self.model.expected_latents(ids, mask)
        else:
            soft = self._conditional.expected_latents(ids, mask, labels=labels)
        return self.model.decode(corrupt(self.model.tokenizer.lookup(ids, *self.grid_size), soft, mask)).clamp(0, 1)

    def _call(self, name: str, *inputs: Tensor, **labels: Tensor) -> Tensor:
        """Call a method of the model, compiled if there is a compiled one."""
        if name not in self._compiled:
            return getattr(self.model, name)(*inputs, **labels)
        # other strides would be compiled again: images of the start share their memory
        return self._compiled[name](*(part.contiguous() for part in inputs), **labels)


def check_batch_size(batch_size: int | None, num_images: int) -> int:
    """The batch size, or the number of images if it is None; a ValueError if one is below 1."""
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
