# Copyright (c) addp_mm contributors. Apache-2.0.
"""Parameter groups that torch.compile can trace."""

from typing import Any

from addp_mm.compat.importing import replace_method


def patch_param_groups(module: Any) -> bool:
    """Make the parameter groups of an optimizer plain dicts.

    Optimizer constructors build the optimizer from a ``ConfigDict``, which converts its groups.
    With ``compile=True`` dynamo fails on this class in the first step.

    Args:
        module: ``mmengine.optim.optimizer.optimizer_wrapper``.

    Returns:
        True.
    """

    def make(original):

        def __init__(self, optimizer, *args, **kwargs):
            for number, group in enumerate(optimizer.param_groups):
                if type(group) is not dict:
                    optimizer.param_groups[number] = dict(group.items())
            original(self, optimizer, *args, **kwargs)

        return __init__

    replace_method(module.OptimWrapper, '__init__', make)
    return True
