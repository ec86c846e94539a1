# Copyright (c) addp_mm contributors. Apache-2.0.
"""The random streams of generative pre-training: one a rank, resumable."""

from __future__ import annotations

import torch

from addp_mm.diffusion import NoiseDraw, NoiseSchedule

_SEED_RANGE = 2**63 - 1


class NoiseStreams:
    """One seeded stream of noise levels and mask seeds for each rank.

    A stream gives the same number of draws to every iteration, whatever the batch size, so each
    process advances the streams of all ranks. The process that writes a checkpoint therefore knows
    every rank's state without asking.

    Args:
        seed: Rank r starts from ``seed + r``.
        world_size: Number of ranks.
    """

    def __init__(self, seed: int, world_size: int = 1) -> None:
        self.seed = seed
        self.generators = [torch.Generator().manual_seed(seed + rank) for rank in range(world_size)]

    def draw(self, schedule: NoiseSchedule, rank: int = 0) -> NoiseDraw:
        """Advance all streams by one iteration and return the draw of one rank.

        Args:
            schedule: Gives a noise level for a generator.
            rank: Whose draw to return.
        """
        drawn = []
        for generator in self.generators:
            level = schedule.sample(generator)
            drawn.append((level, int(torch.randint(_SEED_RANGE, (), generator=generator))))
        level, mask_seed = drawn[rank]
        return NoiseDraw(level, torch.Generator().manual_seed(mask_seed))

    def state(self) -> torch.Tensor:
        """uint8 (world_size, bytes of a generator's state)."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def load(self, state: torch.Tensor) -> int:
        """Continue from :meth:`state`. Ranks that it does not know keep the start of their own stream.

        Returns:
            Number of ranks that the state was saved for.

        Raises:
            ValueError: If the state is not one of these streams.
        """
        expected = self.generators[0].get_state().shape
        if state.dtype != torch.uint8 or state.dim() != 2 or state.shape[1:] != expected:
            raise ValueError(
                f"the checkpoint's noise stream is {state.dtype} {tuple(state.shape)}; expected uint8 "
                f'(ranks, {expected[0]}): it was written by another version of PyTorch or is damaged'
            )
        for generator, saved in zip(self.generators, state, strict=False):
            # set_state reads a row of a larger tensor from the wrong place, or crashes: it needs a
            # tensor of its own
            generator.set_state(saved.cpu().clone())
        return len(state)
