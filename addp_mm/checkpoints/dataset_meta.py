# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names and colours of the classes of a checkpoint, in a safetensors file.

A Runner stores them as ``meta['dataset_meta']``, where the Inferencers of mmdet, mmsegmentation and
mmpretrain read them. The metadata of a safetensors file is text, so they are stored as JSON.
"""

import json
from collections.abc import Mapping
from typing import Any

_KEY = 'dataset_meta'
_STORED = ('classes', 'palette')


def classes_as_text(checkpoint: Mapping) -> dict[str, str]:
    """The classes of a checkpoint as metadata of a safetensors file.

    Args:
        checkpoint: Content of a checkpoint file.

    Returns:
        The metadata; empty if the checkpoint names no classes.
    """
    meta = (checkpoint.get('meta') or {}).get(_KEY) or {}
    if not meta.get('classes'):
        return {}
    stored = {name: meta[name] for name in _STORED if meta.get(name) is not None}
    return {_KEY: json.dumps(stored, default=lambda array: array.tolist())}


def classes_from_text(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Metadata of a safetensors file, with the classes as a Runner stores them.

    Args:
        metadata: Text by name.

    Returns:
        The same text. ``dataset_meta`` is a dict, and missing if its text is something else.
    """
    others = {name: text for name, text in metadata.items() if name != _KEY}
    try:
        meta = json.loads(metadata.get(_KEY, ''))
    except json.JSONDecodeError:
        return others
    return {**others, _KEY: meta} if isinstance(meta, dict) else others
