# Copyright (c) addp_mm contributors. Apache-2.0.
import torch


def assert_equal(first: dict, second: dict, atol: float = 1e-5) -> None:
    """Tensors of the same names differ by no more than ``atol``."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=atol, msg=lambda text, n=name: f'{n}: {text}')


def assert_ddp_equals_one(runs: dict) -> None:
    """Two processes have the gradients and the final weights of one that sees the whole batch."""
    one = runs['one_0']
    assert len(one['gradients']) == 3
    assert max(one['norms']) > 0.5
    for rank in range(2):
        ddp = runs[f'ddp_{rank}']
        for expected, found in zip(one['gradients'], ddp['gradients'], strict=True):
            assert_equal(expected, found)
        assert_equal(one['weights'], ddp['weights'])
