# Copyright (c) addp_mm contributors. Apache-2.0.
"""Initialisation of a module outside of a training."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.logging import MMLogger


def init_weights(module: Any) -> None:
    """Call ``module.init_weights()`` without a line in the log for each parameter.

    mmengine logs how each parameter was initialised. A runner writes that to its log file. Without
    a log file, as in a notebook, it is hundreds of lines on the terminal.

    Args:
        module: A module of mmengine with an ``init_cfg``, or any module with ``init_weights()``.
    """
    logger = MMLogger.get_current_instance()
    logger.addFilter(_is_no_parameter)
    try:
        module.init_weights()
    finally:
        logger.removeFilter(_is_no_parameter)


def _is_no_parameter(record: logging.LogRecord) -> bool:
    return record.funcName != '_dump_init_info'
