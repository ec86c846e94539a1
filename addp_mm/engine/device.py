# Copyright (c) addp_mm contributors. Apache-2.0.
"""The device that a command line tool computes on."""

import re

import torch

from addp_mm.config.config_file import ConfigError


def choose_device(name: str | None) -> torch.device:
    """The device of an option ``--device``; without one, a GPU where there is one.

    Raises:
        ConfigError: PyTorch cannot use it here.
    """
    if name is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # a name of a device is not yet a device
    except (RuntimeError, AssertionError, ImportError) as error:  # depending on what PyTorch lacks
        reason = re.split(r'\. |\n', str(error))[0]
        raise ConfigError(
            f'--device {name} is no device that this PyTorch can use here ({reason}); --device cpu always is'
        ) from error
    return device
