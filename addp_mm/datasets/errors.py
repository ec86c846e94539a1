# Copyright (c) addp_mm contributors. Apache-2.0.
"""The error of datasets, and the check that a folder exists."""

import os
from pathlib import Path

from addp_mm.errors import UserError


class DatasetError(UserError, ValueError):
    """Data that cannot be used. The message names the file or folder and a remedy."""


class BrokenSampleError(DatasetError):
    """A file of one sample that is damaged or missing; the message names it.

    In training, another sample is used instead.
    """


def check_folder_exists(folder: Path, option: str = '') -> None:
    """Check that a folder exists.

    Args:
        folder: The folder.
        option: Name of the option of a tool that gave it. Defaults to '': a config may have given
            it.

    Raises:
        DatasetError: It does not exist. The message names the wrong part of the path and the
            command that writes FashionScenes.
    """
    if folder.is_dir():
        return
    if folder.exists():
        advice = f'Check {option}' if option else 'Check the path given, or those in the config'
        raise DatasetError(f'{folder} is a file, not a folder. {advice}.')
    parent = next(parent for parent in Path(os.path.abspath(folder)).parents if parent.is_dir())
    advice = f'Check {option}' if option else 'Check the path given, or data_root and data_prefix in the config'
    text = f'{folder} does not exist ({parent} exists). {advice}'
    if 'fashion_scenes' in folder.as_posix():
        text += ', or write the data: python tools/dataset_converters/fashion_scenes.py data/fashion_scenes'
    raise DatasetError(f'{text}.')
