# Copyright (c) addp_mm contributors. Apache-2.0.
"""How worker processes are started."""

import multiprocessing
import sys
from multiprocessing.context import BaseContext


def worker_context() -> BaseContext:
    """Start method of the processes that read or write data.

    It is 'fork' on Linux, as in mmengine's data loaders. With Python 3.14 the default became a
    server that starts the workers: each gets a copy of the dataset, and interrupted workers print
    tracebacks. Other systems keep their default.
    """
    return multiprocessing.get_context('fork' if sys.platform == 'linux' else None)
