# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain beside a transformers package that is newer than its multimodal models."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from addp_mm.compat.versions import Lookup, installed_version


@dataclass(frozen=True)
class Needs:
    """What the multimodal models need of transformers.

    Attributes:
        below: The oldest version that was seen to lack it.
        module: Submodule of transformers.
        names: Names in it.
    """

    below: tuple[int, ...]
    module: str
    names: tuple[str, ...]


NEEDS = {
    'mmpretrain': Needs(
        (4, 57),
        'transformers.modeling_utils',
        ('GenerationMixin', 'PreTrainedModel', 'apply_chunking_to_forward', 'find_pruneable_heads_and_indices'),
    ),
    'onedl-mmpretrain': Needs(
        (5,), 'transformers.pytorch_utils', ('apply_chunking_to_forward', 'find_pruneable_heads_and_indices')
    ),
}


def patch_multimodal(module: Any, lookup: Lookup = installed_version) -> bool:
    """Leave mmpretrain's multimodal models out if they cannot be imported.

    mmpretrain imports them with all other models when it finds any transformers from 4.28. Later
    versions lack names that they need, so that ``import mmpretrain.models`` fails. If one of the
    models that are left out is built, mmpretrain's error says so.

    Args:
        module: ``mmpretrain.utils.dependency``.
        lookup: Returns the version of a distribution. Defaults to :func:`installed_version`.

    Returns:
        Whether the models are taken in and cannot be imported.
    """
    needs = next((needs for name, needs in NEEDS.items() if lookup(name)), None)
    if not module.WITH_MULTIMODAL or needs is None or _has(lookup('transformers') or '0', needs):
        return False
    module.WITH_MULTIMODAL = False
    return True


def _has(transformers: str, needs: Needs) -> bool:
    from packaging.version import Version

    if Version(transformers).release >= needs.below:  # importing it takes seconds
        return False
    try:
        found = import_module(needs.module)
    except Exception:  # whatever it raises, mmpretrain.models raises too
        return False
    return all(hasattr(found, name) for name in needs.names)
