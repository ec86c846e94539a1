# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generation by alternating between tokens and pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from addp_mm.diffusion.token_space import NO_CLASS
from addp_mm.errors import ConfigError
from addp_mm.generation.alternating_steps import AlternatingSteps
from addp_mm.generation.class_labels import class_labels
from addp_mm.generation.image_streams import image_generators
from addp_mm.generation.sampling_state import Samples, join_steps
from addp_mm.generation.trajectories.trajectories import Trajectories, join_trajectories

Labels = Tensor | Sequence[int] | None


class AlternatingSampler(AlternatingSteps):
    """Generates images by all steps of :class:`AlternatingSteps`, whose arguments it takes.

    The sampler uses only the given generators, one for each image. Tensors are on the device of the
    model's codebook. The same seed gives the same images for every batch size, up to the rounding
    of the kernels that a device selects for a batch size.

    Example:
        >>> sampler = AlternatingSampler(model, (8, 8), SamplingSchedule(8))  # doctest: +SKIP
        >>> sampler.run(4, torch.Generator().manual_seed(0)).images.shape  # doctest: +SKIP
        torch.Size([4, 3, 64, 64])
    """

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


def check_batch_size(batch_size: int | None, num_images: int) -> int:
    """The batch size, or the number of images if it is None; a ValueError if one is below 1."""
    batch_size = num_images if batch_size is None else batch_size
    if batch_size < 1 or num_images < 1:
        raise ValueError(f'number of images and batch size must be at least 1, got {num_images} and {batch_size}')
    return batch_size
