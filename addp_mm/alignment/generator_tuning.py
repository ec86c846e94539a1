# Copyright (c) addp_mm contributors. Apache-2.0.
"""Base of the algorithms that tune a generator on its own trajectories."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn

from addp_mm.alignment.replay_cache import ReplayCache
from addp_mm.alignment.replayed_batch import ReplayedBatch
from addp_mm.checkpoints.fingerprint import weights_fingerprint
from addp_mm.errors import ConfigError
from addp_mm.generation.trajectories.sampler_settings import precision_of_sampling, sampler_of
from addp_mm.generation.trajectories.trajectories import Trajectories
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles, check_settings
from addp_mm.models.layers.lora import adapted_layers, adapters_off
from addp_mm.models.layers.lora_weights import is_adapter
from addp_mm.models.selfsup.build_component import build_component

TRAINED = ('backbone', 'neck', 'head')


class GeneratorTuning(BaseModel):
    """A generator, and the frozen one from which the tuning starts.

    Pixels of a trajectory are those that the sampling showed: the frozen generator replays them.
    Dropout is off, so that both generators can be compared.

    If backbone or token decoder have LoRA adapters, only these are trained, and the frozen
    generator is the same one with its adapters off. Otherwise, it is a copy, which the checkpoints
    contain, too.

    Args:
        generator: Config of the :class:`~addp_mm.models.selfsup.ADDP` that generated the
            trajectories, or the module. Its ``init_cfg`` loads the weights.
        trajectories: Folder that ``addp generate --trajectories`` wrote.
        cache_gib: Memory for trajectories that were replayed, in GiB of the CPU. In the next epochs
            only the generator that is trained is computed. Trajectories are then replayed one by
            one. Defaults to 0: no cache.
        data_preprocessor: Moves a batch to the device. Defaults to None: mmengine's.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        ConfigError: ``cache_gib`` is negative.
    """

    #: Loss of a batch, by name; an algorithm defines it.
    loss: Callable[..., dict[str, Tensor]]

    def __init__(
        self,
        generator: dict | nn.Module,
        trajectories: str,
        cache_gib: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not cache_gib >= 0:
            raise ConfigError(f'cache_gib must be at least 0, got {cache_gib}')
        self._cache = ReplayCache(self._replay, int(cache_gib * 2**30)) if cache_gib else None
        self.generator: Any = build_component(generator)
        self.folder = Path(trajectories)
        self.has_adapters = any(adapted_layers(getattr(self.generator, part)) for part in TRAINED)
        self.reference: Any = None
        if self.has_adapters:
            self._freeze_all_but_adapters()
        else:
            shared = {id(part): part for part in self.generator.frozen_components.values()}
            self.reference = copy.deepcopy(self.generator, shared).requires_grad_(False)
        names = self.generator._ddp_params_and_buffers_to_ignore  # noqa: SLF001  # of our own class
        self._ddp_params_and_buffers_to_ignore = [f'generator.{name}' for name in names]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings of the trajectories.

        Raises:
            TrajectoryError: They cannot be read.
        """
        return TrajectoryFiles(self.folder).settings()

    def init_weights(self) -> None:
        """Load the generator, and check that it is the one of the trajectories.

        Raises:
            TrajectoryError: The trajectories cannot be read, or another model has generated them.
        """
        super().init_weights()
        if self.reference is not None:
            self.reference.load_state_dict(self.generator.state_dict())
        frozen = {name: weight for name, weight in self.generator.state_dict().items() if not is_adapter(name)}
        check_settings(self.settings, dict(weights=weights_fingerprint(frozen)), self.folder)

    def train(self, mode: bool = True) -> GeneratorTuning:
        """Set the training mode; both generators stay in eval mode. Returns the module itself."""
        super().train(mode)
        self.generator.eval()
        if self.reference is not None:
            self.reference.eval()
        return self

    def forward(self, mode: str = 'loss', **batch: Any) -> dict[str, Tensor]:
        """Loss of a batch: what ``loss`` of the algorithm returns.

        Raises:
            ValueError: The mode is not 'loss'. To generate images, export the generator.
        """
        if mode != 'loss':
            raise ValueError(f"{type(self).__name__} has the mode 'loss' only, got {mode!r}")
        return self.loss(**batch)

    def replay(self, trajectories: Trajectories) -> ReplayedBatch:
        """The states of trajectories, and the logits of the frozen generator."""
        return self._cache(trajectories) if self._cache else self._replay(trajectories)

    def _replay(self, trajectories: Trajectories) -> ReplayedBatch:
        with self._frozen_generator() as frozen, precision_of_sampling(self.settings, trajectories.ids.device):
            return ReplayedBatch.of(sampler_of(self.settings, frozen, frozen.latent_size), trajectories)

    @contextmanager
    def _frozen_generator(self) -> Iterator[Any]:
        if self.reference is not None:
            yield self.reference
        else:
            with adapters_off(self.generator):
                yield self.generator

    def _freeze_all_but_adapters(self) -> None:
        for part in TRAINED:
            if not adapted_layers(getattr(self.generator, part)):
                getattr(self.generator, part).requires_grad_(False)
