# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the ``type`` of a config names: a string, or in mmengine's pure Python style the class itself."""


def type_name(kind: str | type | None) -> str:
    """Bare name of the class: ``'ADDPViT'`` for ``'addp_mm.ADDPViT'`` and for the class; ``''`` for None."""
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rsplit('.', 1)[-1]
