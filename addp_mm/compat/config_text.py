# Copyright (c) addp_mm contributors. Apache-2.0.
"""The formatted text of a config, which every checkpoint holds."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

_TEXTS = 8  # a training has its config, and the one with what the hooks have changed


def patch_config_text(module: Any) -> bool:
    """Let ``Config.pretty_text`` format equal texts once.

    A Runner formats its whole config for each checkpoint and each visualizer, as code in Python.
    That takes a part of a second, in which nothing is trained.

    Args:
        module: ``mmengine.config.config``.

    Returns:
        Whether the same text is formatted again.
    """
    formatted: list[str] = []
    original = getattr(module, 'FormatCode', None)
    if original is None:
        return False

    def recorded(text: str, **options: Any) -> tuple[str, bool]:
        formatted.append(text)
        return text, False

    module.FormatCode = recorded
    try:
        config = module.Config(dict(a=1))
        texts = [config.pretty_text for _ in range(2)]
    finally:
        module.FormatCode = original
    if formatted != texts:
        return False
    module.FormatCode = _formatted_once(original)  # yapf's own module keeps its function
    return True


def _formatted_once(original: Callable) -> Callable:

    @lru_cache(_TEXTS)
    def format_text(text: str, style: tuple | str | None, options: tuple) -> Any:
        return original(text, style_config=dict(style) if isinstance(style, tuple) else style, **dict(options))

    @wraps(original)
    def formatted_once(text: str, style_config: Any = None, **options: Any) -> Any:
        style = tuple(style_config.items()) if isinstance(style_config, dict) else style_config
        return format_text(text, style, tuple(options.items()))

    return formatted_once
