# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names of weights without the parts that wrappers add."""

from __future__ import annotations

import re

# Data parallel (of the model or a component), FSDP, torch.compile, activation checkpointing.
_WRAPPERS = re.compile(r'(?<![^.])(module|_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.')


def strip_wrappers(name: str) -> str:
    """Name of a weight or module without the parts that wrappers add, such as ``module.``.

    Example:
        >>> strip_wrappers('module.backbone._fsdp_wrapped_module.norm.weight')
        'backbone.norm.weight'
    """
    return _WRAPPERS.sub('', f'{name}.')[:-1]
