# Copyright (c) addp_mm contributors. Apache-2.0.
"""Holes in images that an alignment fills: those of the training and those of the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from addp_mm.alignment.pipeline.sections import as_options, needed, refuse_unknown, require_dict, require_number
from addp_mm.datasets.listed.image_mask_pairs import find_pairs
from addp_mm.errors import ConfigError, UserError

_COMPARISON = 'comparison'
_KEYS = ('image', 'mask', 'box', 'outpaint', 'invert_mask', 'reconstruction', 'num_samples')
_NUM_SAMPLES = 4  # of addp inpaint


@dataclass(frozen=True)
class Filling:
    """Which holes are filled, and how often.

    Attributes:
        section: The options of ``addp inpaint``, by their names in a config.
        name: Where the section is.
    """

    section: Mapping[str, Any]
    name: str

    @property
    def options(self) -> tuple[str, ...]:
        """The image or folder, and the options."""
        rest = {key: value for key, value in self.section.items() if key != 'image'}
        return str(self.section['image']), *as_options(rest)

    @cached_property
    def num_images(self) -> int:
        """Images that are made, if no mask is empty.

        Raises:
            ConfigError: There are no such images or masks.
        """
        mask = self.section.get('mask')
        try:
            pairs = find_pairs(str(self.section['image']), mask and str(mask))
        except UserError as error:
            raise ConfigError(f'{self.name}: {error}') from error
        return len(pairs) * (self.section.get('num_samples') or _NUM_SAMPLES)


@dataclass(frozen=True)
class Holes:
    """Holes of the training and of the comparison.

    Attributes:
        training: Those whose samples are trained on.
        compared: Those with which the models are compared.
    """

    training: Filling
    compared: Filling

    @property
    def are_fresh(self) -> bool:
        """Whether the comparison has holes of its own."""
        return self.training.options != self.compared.options

    def check(self) -> None:
        """Find the images and masks.

        Raises:
            ConfigError: There are none, or they do not fit.
        """
        for filling in (self.training, self.compared):
            _ = filling.num_images  # it reads the folders


def read_holes(section: Any, name: str) -> Holes | None:
    """Read the section ``inpainting``.

    Args:
        section: Options of ``addp inpaint``, and ``comparison``: those that are different in the
            comparison. None: whole images are generated.
        name: Where the section is.

    Raises:
        ConfigError: The section is wrong.
    """
    if section is None:
        return None
    rest = dict(require_dict(section, name))
    changed = dict(require_dict(rest.pop(_COMPARISON, None) or {}, f'{name}.{_COMPARISON}'))
    refuse_unknown(rest, (*_KEYS, _COMPARISON), name)
    refuse_unknown(changed, _KEYS, f'{name}.{_COMPARISON}')
    return Holes(_filling(rest, name), _filling(rest | changed, f'{name}.{_COMPARISON}' if changed else name))


def _filling(section: dict[str, Any], name: str) -> Filling:
    needed(section, 'image', name)
    if not any(section.get(key) for key in ('mask', 'box', 'outpaint')):
        raise ConfigError(f'{name} needs mask, box or outpaint: what to generate')
    for key in ('box', 'outpaint'):
        if section.get(key) and len(str(section[key]).split(',')) != 4:
            raise ConfigError(f'{name}.{key} must be four numbers, got {section[key]!r}')
    if section.get('num_samples') is not None:
        require_number(section['num_samples'], 1, f'{name}.num_samples')
    return Filling(section, name)
