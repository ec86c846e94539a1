# Copyright (c) addp_mm contributors. Apache-2.0.
"""The patch of activation checkpointing."""

import pytest
import torch
from helpers.modules import module_with

from addp_mm.compat.activation_checkpointing import patch_activation_checkpointing


def test_activation_checkpointing_keeps_keywords_and_gradients():
    from mmengine.runner import activation_checkpointing as module

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3, 3)

        def forward(self, x, scale=1):
            return self.fc(x) * scale

    broken = Block()
    broken.forward = module.wrap_forward.__wrapped__(broken.forward)
    with pytest.raises(TypeError):
        broken(torch.ones(1, 3), scale=2)
    model = torch.nn.ModuleDict(dict(block=Block()))
    expected = model.block(torch.ones(1, 3), scale=2)
    module.turn_on_activation_checkpointing(model, 'block')
    out = model.block(torch.ones(1, 3), scale=2)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert model.block.fc.weight.grad.abs().sum() > 0


def test_activation_checkpointing_without_the_fault_stays():

    def wrap_forward(forward):
        return forward

    module = module_with(wrap_forward=wrap_forward)
    assert not patch_activation_checkpointing(module)
    assert module.wrap_forward is wrap_forward
