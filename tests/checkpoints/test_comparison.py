# Copyright (c) addp_mm contributors. Apache-2.0.
import torch
from torch import nn

from addp_mm.checkpoints.comparison import compare_weights
from addp_mm.checkpoints.fingerprint import module_fingerprint


def test_each_kind_of_difference_is_named():
    module = nn.ModuleDict(dict(a=nn.Linear(2, 3), b=nn.Linear(2, 3)))
    shapes = {'a.weight': (3, 2), 'a.bias': (4,), 'b.weight': (3, 2), 'c': (1,)}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    found = compare_weights(weights, module)
    assert found.matching == ('a.weight', 'b.weight')
    assert found.missing == ('b.bias',)
    assert found.unexpected == ('c',)
    assert found.mismatched == {'a.bias': ((4,), (3,))}
    assert not found.is_exact
    assert found.differences() == (
        'missing b.bias; unexpected c; another shape: a.bias is [4] in the checkpoint and [3] in the model'
    )
    same = compare_weights(module.state_dict(), module.state_dict())
    assert same.is_exact
    assert same.differences() == ''


def test_the_fingerprint_depends_on_names_types_values_and_settings():
    module = nn.Linear(2, 3)
    same = nn.Linear(2, 3)
    same.load_state_dict(module.state_dict())
    first = module_fingerprint(module, 'x', dict(a=1))
    assert first == module_fingerprint(same, 'x', dict(a=1))
    assert len(first) == 64
    others = [module_fingerprint(module, 'x', dict(a=2)), module_fingerprint(module.half(), 'x', dict(a=1))]
    with torch.no_grad():
        same.bias[0] += 1
    others.append(module_fingerprint(same, 'x', dict(a=1)))
    assert len({first, *others}) == 4
