# Copyright (c) addp_mm contributors. Apache-2.0.
"""A reward that is built from a config, and whose numbers are checked."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError, UserError, suggest
from addp_mm.registry import REWARDS


class RewardError(UserError, ValueError):
    """A reward that cannot be computed, or is not one number for each image."""


class Reward:
    """A reward whose numbers are checked.

    Args:
        function: Called with images (B, C, H, W) in [0, 1]; if it has an argument ``labels``, also
            with the classes of the images, (B,) int64, -1 for "no class". Returns a number for each
            image, (B,): the higher, the better.
        name: Name of the reward in errors and reports.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.name, self._function = name, function
        self._takes_labels = 'labels' in inspect.signature(function).parameters

    def fingerprint(self) -> str | None:
        """The fingerprint of all weights of the reward; None if it has no weights.

        These are the modules in its attributes, and in the attributes of those.
        """
        found = [module_fingerprint(module) for module in _modules(self._function)]
        if not found:
            return None
        return found[0] if len(found) == 1 else hashlib.sha256(' '.join(found).encode()).hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Rewards of images.

        Args:
            images: (B, C, H, W) in [0, 1].
            labels: (B,), int64; -1 is "no class".

        Returns:
            (B,), float32, on the CPU.

        Raises:
            RewardError: The function does not return one finite number for each image.
        """
        found = self._function(images, labels=labels) if self._takes_labels else self._function(images)
        try:
            rewards = torch.as_tensor(found).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise RewardError(
                f'the reward {self.name} returned {type(found).__name__}, but it must be a tensor of numbers ({error})'
            ) from error
        if tuple(rewards.shape) != (len(images),):
            raise RewardError(
                f'the reward {self.name} must return one number for each image, ({len(images)},), but its result is '
                f'{tuple(rewards.shape)}'
            )
        rewards = rewards.float()
        if not rewards.isfinite().all():
            row = int((~rewards.isfinite()).nonzero()[0])
            raise RewardError(f'the reward {self.name} is {rewards[row].item()} for image {row} of a batch')
        return rewards


def _modules(owner: object, depth: int = 2) -> Iterator[nn.Module]:
    """Modules in the attributes of an object, by the names of the attributes."""
    if isinstance(owner, nn.Module):
        yield owner
    elif isinstance(owner, partial):
        yield from _modules(owner.func, depth)
        for _, value in sorted(owner.keywords.items()):
            yield from _modules(value, depth - 1)
    elif depth and hasattr(owner, '__dict__'):
        for _, value in sorted(vars(owner).items()):
            yield from _modules(value, depth - 1)


def build_reward(
    cfg: Mapping[str, Any] | Callable[..., Any], name: str = 'reward', device: torch.device | None = None
) -> Reward:
    """Build a reward.

    Args:
        cfg: A function or object as :class:`Reward` takes it; or a config: its ``type`` is
            registered in ``addp_mm.registry.REWARDS``, a class, or a function whose other arguments
            are in the config.
        name: Key of the config, for errors. Defaults to 'reward'.
        device: The ``device`` of a reward that has one and whose config does not say it. Defaults
            to None: the reward's own.

    Raises:
        ConfigError: The type is unknown, or does not have these arguments.
    """
    if not isinstance(cfg, Mapping):
        if not callable(cfg):
            raise ConfigError(f'{name} is {cfg!r}, but it must be a dict with type, or a function')
        return Reward(cfg, getattr(cfg, '__name__', type(cfg).__name__))
    options = dict(cfg)
    kind = options.pop('type', None)
    found = REWARDS.get(kind) if isinstance(kind, str) else kind
    if not callable(found):
        known = sorted(name for name in REWARDS.module_dict)
        raise ConfigError(
            f'{name}.type is {kind!r}, which is not registered{suggest(str(kind), known)}. There are '
            f'{", ".join(known)}; your own function needs @REWARDS.register_module() of addp_mm.registry, and its '
            'module custom_imports in the config'
        )
    signature = inspect.signature(found)
    if device is not None and 'device' in signature.parameters:
        options.setdefault('device', str(device))
    try:
        # a function gets the images later
        (signature.bind if isinstance(found, type) else signature.bind_partial)(**options)
    except TypeError as error:
        raise ConfigError(f'{name}: {type_name(kind)}: {error}') from error
    return Reward(found(**options) if isinstance(found, type) else partial(found, **options), type_name(kind))
