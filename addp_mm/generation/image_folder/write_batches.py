# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generate the missing images of a folder, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from addp_mm.generation.alternating_sampler import AlternatingSampler
from addp_mm.generation.figures import to_uint8
from addp_mm.generation.image_folder.image_files import ImageFiles
from addp_mm.generation.image_folder.image_writers import ImageWriters
from addp_mm.generation.image_streams import image_generator
from addp_mm.generation.sampling_state import Samples
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles


def missing_batches(missing: Collection[int], num_images: int, batch_size: int) -> list[range]:
    """The batches in which an image is missing.

    Batch k always has the images from k * batch_size on, so that an image is computed with the same
    ones after an interruption and on every process. Otherwise other kernels might round it in
    another way.

    Args:
        missing: Numbers of the missing images.
        num_images: Number of all images.
        batch_size: Images in a batch; the last one may have fewer.
    """
    starts = sorted({index - index % batch_size for index in missing})
    return [range(start, min(start + batch_size, num_images)) for start in starts]


class BatchWriter:
    """Generates batches and writes their missing images while the next batch is generated.

    The noise of an image depends on the seed and its number alone. Its final pixels are decoded
    from its tokens on their own, so that they do not depend on the size of the batch.

    Args:
        sampler: The sampler.
        files: Where to write the images.
        seed: Seed of the run.
        classes: Classes that the images have in turn. Defaults to None: no classes.
        amp: Whether the model runs in bfloat16. Defaults to False.
        num_threads: Threads that write. Defaults to 4.
        trajectories: Files for the trajectories of the images. Defaults to None: they are not kept.
        settings: What determines the trajectories, for their files. Defaults to None.
    """

    def __init__(
        self,
        sampler: AlternatingSampler,
        files: ImageFiles,
        seed: int,
        classes: Sequence[int] | None = None,
        amp: bool = False,
        num_threads: int = 4,
        trajectories: TrajectoryFiles | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.sampler, self.files, self.seed, self.classes = sampler, files, seed, classes
        self.amp, self.num_threads = amp, num_threads
        self.trajectories, self.settings = trajectories, settings or {}

    def write(self, batches: Sequence[range], missing: Collection[int], advance: Callable[[float], None]) -> None:
        """Generate batches and write their missing images.

        Args:
            batches: Numbers of the images of each batch.
            missing: Numbers of the images to write.
            advance: Called with the number of images that are done; a step counts as a part.

        Raises:
            FileWriteError: An image cannot be written.
        """
        missing = frozenset(missing)
        limit = 2 * max(map(len, batches), default=1)  # a whole batch can wait during the next one
        with ImageWriters(self.files.write, self.num_threads, limit) as writers:
            for batch in batches:
                wanted = [index for index in batch if index in missing]
                samples = self._sample(batch, partial(self._count, len(wanted), advance))
                ids = samples.ids
                if self.trajectories is not None and samples.trajectories is not None:
                    self.trajectories.write(batch.start, samples.trajectories, self.settings)
                rows = [index - batch.start for index in wanted]
                for index, image in zip(wanted, self._decode(ids[rows]), strict=True):
                    writers.submit(index, image)

    def labels(self, images: Sequence[int]) -> list[int] | None:
        """Classes of images; None if they have none."""
        return None if self.classes is None else [self.classes[index % len(self.classes)] for index in images]

    def _sample(self, batch: range, progress: Callable[[int], None]) -> Samples:
        ids, mask = self.sampler.blank(len(batch))
        generators = [image_generator(self.seed, index) for index in batch]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.amp):
            return self.sampler.complete(ids, mask, generators, self.labels(batch), progress=progress)

    def _count(self, num_wanted: int, advance: Callable[[float], None], _in_batch: int) -> None:
        """Count a step of a batch with so many images to write."""
        advance(num_wanted / self.sampler.schedule.num_steps)

    @torch.no_grad()
    def _decode(self, ids: Tensor) -> Iterator[np.ndarray]:
        """Images, uint8 (H, W, 3), of ids (B, L), each decoded on its own."""
        model = self.sampler.model
        for row in ids.split(1):
            latents = model.tokenizer.lookup(row, *self.sampler.grid_size)
            yield to_uint8(model.decode(latents))[0]
