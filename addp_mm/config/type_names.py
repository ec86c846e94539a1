# Copyright (c) addp_mm contributors. Apache-2.0.
"""Class names in configs."""


def type_name(kind: str | type | None) -> str:
    """Class name of a config's ``type``: 'ADDPViT' for 'addp_mm.ADDPViT' and for the class.

    Args:
        kind: The type. None gives ''.
    """
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rsplit('.', 1)[-1]
