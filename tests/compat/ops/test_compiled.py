# Copyright (c) addp_mm contributors. Apache-2.0.
"""Each operator against mmcv's compiled one, if the installed mmcv has compiled operators."""

import pytest
import torch
from helpers.operator_cases import GROUPS, Inputs

from addp_mm.compat.extension_choice import compiled_extension

COMPILED = compiled_extension()
by_name = pytest.mark.parametrize('group', GROUPS, ids=lambda group: group.__name__)


def called(ext, case):
    """What an operator returns, and the arguments that it fills."""
    args = [a.clone() if torch.is_tensor(a) else a for a in case.args]
    returned = getattr(ext, case.name)(*args, **case.named)
    return returned, [args[position] for position in case.filled]


@by_name
def test_every_call_works(ext, device, group):
    for case in group(Inputs(device, ext)):
        returned, filled = called(ext, case)
        assert filled or returned is not None, case.name


@pytest.mark.skipif(COMPILED is None, reason='needs an mmcv with compiled operators')
@by_name
def test_equal(ext, device, group):
    compared = 0
    for case in group(Inputs(device, ext)):
        try:
            theirs = called(COMPILED, case)
        except RuntimeError as error:
            if 'not found' not in str(error):
                raise
            continue  # mmcv has it for CUDA only
        torch.testing.assert_close(
            called(ext, case), theirs, atol=1e-4, rtol=1e-4, msg=lambda text, name=case.name: f'{name}: {text}'
        )
        compared += 1
    if not compared:
        pytest.skip(f'mmcv has no kernel for {device}')
