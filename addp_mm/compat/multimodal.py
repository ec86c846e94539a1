# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain beside a transformers package that is newer than its multimodal models."""

from typing import Any

from addp_mm.compat.versions import Lookup, installed_version

_REMOVED_IN = (4, 57)  # the oldest version that was seen without the names below
_NAMES = ('GenerationMixin', 'PreTrainedModel', 'apply_chunking_to_forward', 'find_pruneable_heads_and_indices')


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
    if not module.WITH_MULTIMODAL or lookup('mmpretrain') is None or _can_be_imported(lookup('transformers') or '0'):
        return False
    module.WITH_MULTIMODAL = False
    return True


def _can_be_imported(transformers: str) -> bool:
    from packaging.version import Version

    if Version(transformers).release >= _REMOVED_IN:  # importing it takes seconds
        return False
    try:
        from transformers import modeling_utils
    except Exception:  # whatever it raises, mmpretrain.models raises too
        return False
    return all(hasattr(modeling_utils, name) for name in _NAMES)
