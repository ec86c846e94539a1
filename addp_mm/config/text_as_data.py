# Copyright (c) addp_mm contributors. Apache-2.0.
"""Make ``Config.fromstring`` read the text of a config as data.

A checkpoint holds the text of its config. mmengine runs it as Python when it resumes, and when an
inferencer has no config. A file that you name is run; a text in another file is not.
"""

from __future__ import annotations

from typing import Any


def read_text_as_data(config: Any) -> None:
    """Make ``Config.fromstring`` read texts in Python, JSON and YAML as data.

    Args:
        config: The module ``mmengine.config.config``.
    """

    def fromstring(cfg_str: str, file_format: str) -> Any:
        """Read the text of a config, which can only assign data.

        Args:
            cfg_str: The text.
            file_format: '.py', '.json', '.yaml' or '.yml'.

        Raises:
            ConfigError: The text is more than data, or names something that could run code.
            OSError: The format is another one.
        """
        from addp_mm.config.data_config import values_of_text
        from addp_mm.config.data_types import check_data_config

        where = 'the config in the checkpoint or text'
        values = values_of_text(cfg_str, file_format, where)
        check_data_config(values, where)
        return config.Config(values, cfg_text=cfg_str)

    config.Config.fromstring = staticmethod(fromstring)


def read_dumps(config: Any) -> None:
    """Make a config in Python inherit tuples and other values from a dump in JSON or YAML.

    Args:
        config: The module ``mmengine.config.config``.
    """
    original = config.load

    def load(*args: Any, **kwargs: Any) -> Any:
        from addp_mm.config.plain_values import from_plain

        return from_plain(original(*args, **kwargs))

    config.load = load


def write_values_as_they_are(config: Any) -> None:
    """Make ``Config.dump`` write tuples and numbers as keys to JSON, so that they are read again.

    A training writes its config to its work dir, from which it is tested.

    Args:
        config: The module ``mmengine.config.config``.
    """
    original = config.dump

    def dump(obj: Any, *args: Any, **kwargs: Any) -> Any:
        from addp_mm.config.plain_values import to_plain
        from addp_mm.errors import ConfigError

        try:
            return original(to_plain(obj) if kwargs.get('file_format') == 'json' else obj, *args, **kwargs)
        except ValueError as error:
            raise ConfigError(f'the config cannot be written as JSON: {error}') from error

    config.dump = dump
