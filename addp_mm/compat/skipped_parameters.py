# Copyright (c) addp_mm contributors. Apache-2.0.
"""One warning for all parameters that an optimizer skips."""

import logging
from collections.abc import Callable
from typing import Any

from addp_mm.compat.importing import replace_method
from addp_mm.errors import first_few

_REASON = ' is skipped since its requires_grad=False'


def patch_skipped_parameters(module: Any) -> bool:
    """Let mmengine's constructor of optimizers warn once about frozen parameters, with their count.

    With ``paramwise_cfg`` it logs one warning for each of them: hundreds for a frozen tokenizer.

    Args:
        module: ``mmengine.optim.optimizer.default_constructor``.

    Returns:
        Whether a warning is logged for each parameter.
    """
    from torch import nn

    recorded: list[str] = []
    names = dict(print_log=lambda message, *args, **kwargs: recorded.append(message), mmcv_full_available=lambda: False)
    originals = {name: getattr(module, name, None) for name in names}
    vars(module).update(names)  # mmcv imports mmengine.optim, which is being imported here
    try:
        constructor = module.DefaultOptimWrapperConstructor(dict(optimizer=dict(lr=1.0)))
        constructor.add_params([], nn.Linear(1, 1).requires_grad_(False))
    finally:
        vars(module).update(originals)
    if not any(message.endswith(_REASON) for message in recorded):
        return False
    replace_method(module.DefaultOptimWrapperConstructor, '__call__', lambda original: _summarised(original, module))
    return True


def _summarised(original: Callable, module: Any) -> Callable:

    def __call__(self, model):
        skipped = []
        print_log = module.print_log

        def collect(message, *args, **kwargs):
            if isinstance(message, str) and message.endswith(_REASON):
                skipped.append(message.removesuffix(_REASON))
            else:
                print_log(message, *args, **kwargs)

        module.print_log = collect
        try:
            wrapper = original(self, model)
        finally:
            module.print_log = print_log
        if skipped:
            print_log(
                f'{len(skipped)} parameters are skipped by the optimizer, since their requires_grad is False: '
                f'{first_few(skipped, 3)}',
                logger='current',
                level=logging.WARNING,
            )
        return wrapper

    return __call__
