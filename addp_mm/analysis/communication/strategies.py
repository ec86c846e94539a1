# Copyright (c) addp_mm contributors. Apache-2.0.
"""The exchanges of a config's training step, by strategy and number of processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config

from addp_mm.analysis.communication.data_parallel import data_parallel
from addp_mm.analysis.communication.exchange import Exchange, Group
from addp_mm.analysis.communication.others import in_order, of_hooks, sync_norms
from addp_mm.analysis.communication.sharded import Sharding, sharded
from addp_mm.analysis.communication.step_trace import StepTrace
from addp_mm.config.config_file import ConfigError
from addp_mm.engine.strategies.sharded import UNITS

_BFLOAT16 = dict(param_dtype='bfloat16', reduce_dtype='bfloat16')
# Arguments of FullyShardedDataParallel by strategy; {} is DistributedDataParallel.
STRATEGIES: dict[str, dict] = {
    'DDP': {},
    'FULL_SHARD': dict(sharding_strategy='FULL_SHARD'),
    'SHARD_GRAD_OP': dict(sharding_strategy='SHARD_GRAD_OP'),
    'HYBRID_SHARD': dict(sharding_strategy='HYBRID_SHARD'),
    'FULL_SHARD, bfloat16': dict(sharding_strategy='FULL_SHARD', mixed_precision=_BFLOAT16),
}


@dataclass(frozen=True)
class Layout:
    """How the images of a step are spread.

    Args:
        processes: Number of processes, one on each GPU.
        per_node: Largest number of processes of a node.
        passes: Forward and backward passes of a step.
        images: Images of a pass in each process.
    """

    processes: int
    per_node: int
    passes: int
    images: float

    @classmethod
    def of_step(cls, processes: int, per_node: int, images: int, most: int) -> Layout:
        """Spread the images of a step evenly; each process gets at least one.

        Args:
            processes: Number of processes.
            per_node: Largest number of processes of a node.
            images: Images of a step of all processes.
            most: Largest number of images of a pass in each process.

        Raises:
            ConfigError: Not all nodes would be full.
        """
        if processes > per_node and processes % per_node:
            raise ConfigError(f'--processes {processes}: give a multiple of --per-node, which is {per_node}')
        each = max(images / processes, 1)
        passes = math.ceil(each / most)
        return cls(processes, per_node, passes, each / passes)


def units_of_config(cfg: Config) -> Sequence[str]:
    """Class names of the units that ShardedStrategy shards."""
    return (cfg.get('strategy') or {}).get('units') or UNITS


def images_of_step(cfg: Config) -> int:
    """Images of a step of all processes, by ``auto_scale_lr``.

    Raises:
        ConfigError: The config does not say it.
    """
    images = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not images:
        raise ConfigError('the config has no auto_scale_lr.base_batch_size; give the images of a step by --images')
    return images


def exchanges_of(
    cfg: Config, trace: StepTrace, strategy: Mapping, layout: Layout, with_norms: bool = True
) -> list[Exchange]:
    """Everything that a process exchanges in a step, in order.

    Args:
        cfg: Config of the training.
        trace: A step of one image.
        strategy: One of :data:`STRATEGIES`.
        layout: How the images are spread.
        with_norms: Whether synchronised batch norms count. Defaults to True.
    """
    group, step = Group.of_all(layout.processes, layout.per_node), (layout.passes, layout.images)
    if strategy:
        low = 'mixed_precision' in strategy
        sharding = Sharding.named(
            strategy['sharding_strategy'],
            layout.processes,
            layout.per_node,
            dtype=torch.bfloat16 if low else torch.float32,
            clips=bool(cfg.optim_wrapper.get('clip_grad')),
        )
        exchanges = sharded(trace, units_of_config(cfg), sharding, *step)
    else:
        exchanges = data_parallel(trace, group, *step)
    norms = sync_norms(trace, group, *step) if with_norms else []
    return in_order(exchanges, norms, of_hooks(cfg, trace, group, *step))


@dataclass(frozen=True)
class Comparison:
    """Counted and seen collective operations of a step.

    Args:
        counted: Kind and bytes of each.
        seen: The same, of a step in two processes.
    """

    counted: Sequence[tuple[str, int]]
    seen: Sequence[tuple[str, int]]

    @property
    def is_equal(self) -> bool:
        """Whether they are the same, with the same sizes."""
        return Counter(self.counted) == Counter(self.seen)

    def difference(self) -> str:
        """The first operations that are only in one of them."""
        counted, seen = Counter(self.counted), Counter(self.seen)
        parts = []
        for title, found in (('not counted', seen - counted), ('not seen', counted - seen)):
            listed = [f'{count} x {kind} of {size:,} bytes' for (kind, size), count in found.most_common(3)]
            parts += [f'{title}: {", ".join(listed)}{", …" if len(found) > len(listed) else ""}'] if found else []
        return '; '.join(parts)
