# Copyright (c) addp_mm contributors. Apache-2.0.
"""The device of a command line tool."""

import re

import torch

from addp_mm.config.config_file import ConfigError
from addp_mm.devices import default_device
from addp_mm.engine.cpu_memory import keep_freed_memory


def choose_device(name: str | None) -> torch.device:
    """The device of an option ``--device``. A process on the CPU keeps its memory from then on.

    The option itself is :func:`addp_mm.cli_options.add_device_option`.

    Args:
        name: Name of the device. None chooses the accelerator if there is one, else the CPU.

    Raises:
        ConfigError: PyTorch cannot use the device here.
    """
    device = _device(name)
    if device.type == 'cpu':
        keep_freed_memory()
    return device


def _device(name: str | None) -> torch.device:
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # the device of a valid name may be missing
    except (
        RuntimeError,
        AssertionError,
        ImportError,
    ) as error:  # the type of the error depends on the build of PyTorch
        reason = re.split(r'\. |\n', str(error))[0]
        raise ConfigError(
            f'--device {name}: this PyTorch cannot use the device here ({reason}); --device cpu always works'
        ) from error
    return device
