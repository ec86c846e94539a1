# Copyright (c) addp_mm contributors. Apache-2.0.
"""The steps between tokens and pixels, one at a time."""

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
from addp_mm.generation.guidance import Guidance, guided_logits
from addp_mm.generation.sampling_schedule import SamplingSchedule
from addp_mm.generation.sampling_state import SamplingStep
from addp_mm.generation.trajectories.trajectories import KNOWN


class NonFiniteLogitsError(UserError, ValueError):
    """A model gives logits that are NaN or Inf."""


class AlternatingSteps:
    """Alternates ADDP's two directions, step by step (arXiv 2306.05423, section 3.3).

    Each step predicts all masked tokens from pixels and visible tokens, keeps those draws that the
    schedule selects, masks the others again and decodes the next pixels. Masked positions are
    decoded from the mean code under the prediction. Details follow the released code.

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
