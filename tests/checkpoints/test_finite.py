# Copyright (c) addp_mm contributors. Apache-2.0.
import logging
import math

import pytest
import torch
from torch import nn

from addp_mm.checkpoints.comparison import load_exactly
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.finite import must_be_finite, non_finite, refuse_non_finite
from addp_mm.checks.checkpoint_fit import check_checkpoint_fit
from addp_mm.models.pretrained import Pretrained


class Masked(nn.Module):
    """A layer, batch norm, and a mask that is infinite on purpose."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)
        self.register_buffer('mask', torch.tensor([0.0, -math.inf]))


def broken(name, value=math.nan):
    state = {key: tensor.clone() for key, tensor in Masked().state_dict().items()}
    state[name].view(-1)[:2] = value
    return state


def load_from(weights, module, source, tmp_path):
    check_checkpoint_fit(dict(state_dict=weights), module, source, logging.getLogger(), complete=False)


def resume(weights, module, source, tmp_path):
    weights = {f'module.{name}': value for name, value in weights.items()}
    check_checkpoint_fit(dict(state_dict=weights), nn.DataParallel(module), source, logging.getLogger(), complete=True)


def pretrained(weights, module, source, tmp_path):
    torch.save(weights, tmp_path / source)
    Pretrained(str(tmp_path / source))(module)


def exactly(weights, module, source, tmp_path):
    load_exactly(weights, module, source)


@pytest.mark.parametrize('load', [load_from, resume, pretrained, exactly])
def test_weights_and_statistics_must_be_finite_and_masks_need_not(tmp_path, load):
    for name, total in (('layer.weight', 6), ('norm.running_var', 3)):
        for value in (math.nan, math.inf, -math.inf):
            module = Masked()
            message = (
                rf'a\.pth has weights that are NaN or Inf: \S*{name} \(2 of {total} values\)\. .*earlier checkpoint'
            )
            with pytest.raises(CheckpointError, match=message):
                load(broken(name, value), module, 'a.pth', tmp_path)
            if load in (pretrained, exactly):  # the others are asked before mmengine loads
                assert module.state_dict()[name].isfinite().all()
    load(broken('mask', -math.inf), Masked(), 'a.pth', tmp_path)


def test_weights_that_are_not_loaded_may_be_anything():
    weights = {'head.weight': torch.tensor([math.nan])}
    refuse_non_finite(weights, Masked(), 'a.pth')
    assert 'mask' not in must_be_finite(Masked())


def test_every_type_is_counted():
    weights = dict(
        half=torch.tensor([1.0, math.inf], dtype=torch.float16),
        eight=torch.tensor([math.nan, 1.0, math.nan]).to(torch.float8_e4m3fn),
        pair=torch.tensor([complex(0, math.nan)]),
        number=torch.tensor(3),
        none=torch.zeros(0),
    )
    assert dict(non_finite(weights)) == dict(half=1, eight=2, pair=1)
