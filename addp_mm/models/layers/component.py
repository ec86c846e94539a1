# Copyright (c) addp_mm contributors. Apache-2.0.
"""Base class of the components of ADDP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn

from addp_mm.errors import ConfigError


class AdoptedWeights(NamedTuple):
    """Weights of another project under a module's names.

    Attributes:
        weights: The weights.
        resized: 'name (shape before) -> (shape after)' of those that were resized.
    """

    weights: dict[str, Tensor]
    resized: list[str]


class Component(BaseModule):
    """A module of this package whose weights may come from a checkpoint.

    Attributes:
        component: The module's role in ADDP: 'model' for the whole algorithm, 'backbone', 'neck',
            'head', 'tokenizer' or 'predictor'; '' for another module. ``addp_mm.Pretrained`` uses
            it to find the module's weights in a checkpoint.
        required_weights: Prefixes of weight names. ``addp_mm.Pretrained`` refuses a checkpoint that
            has no weight for one of them, because these weights would stay random.
    """

    component: str = ''
    required_weights: tuple[str, ...] = ()

    def adopt_weights(self, weights: Mapping[str, Tensor], pos_grid: tuple[int, int] | None) -> AdoptedWeights | None:
        """Convert weights of other projects to the module's names and sizes.

        ``addp_mm.Pretrained`` calls it for names that are not all of the module's own.

        Args:
            weights: The checkpoint's weights, without the prefix.
            pos_grid: (height, width) of their positions in patches; None if they are not known.

        Returns:
            The weights for the module; None if the layouts of :mod:`addp_mm.layouts` apply to it.

        Raises:
            ValueError: The weights are of another model. The message continues the name of the
                file.
        """

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Check that weights under the module's own names are of the same model.

        ``addp_mm.Pretrained`` calls it for each component of the module that it initialises.

        Args:
            weights: The checkpoint's weights for this module, which may be a part of a model.

        Raises:
            ValueError: They are of another model, such as one with more blocks. The message
                continues the name of the file.
        """

    def train(self, mode: bool = True) -> Component:
        """Set training mode, except for frozen parts. Returns the module itself."""
        super().train(mode)
        for part in self._frozen_parts():
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def _frozen_parts(self) -> Iterable[nn.Module | nn.Parameter]:
        """Modules and parameters that are not trained; a subclass names its own."""
        return ()

    def init_weights(self) -> None:
        """Initialise the weights according to ``init_cfg``.

        Raises:
            ConfigError: ``init_cfg`` has mmengine's ``type='Pretrained'``. It would ignore weights
                that do not match and leave the module random.
        """
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg or {}]
        if any(config.get('type') in ('Pretrained', PretrainedInit) for config in configs):
            raise ConfigError(
                f"init_cfg of {type(self).__name__} has type='Pretrained', which leaves weights random without an "
                "error if their names or shapes differ. Write type='addp_mm.Pretrained' instead; it takes the same "
                'checkpoint and prefix.'
            )
        super().init_weights()
