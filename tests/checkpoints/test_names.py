# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest

from addp_mm.checkpoints.names import strip_wrappers


@pytest.mark.parametrize(
    'name, plain',
    [
        ('module.backbone.norm.weight', 'backbone.norm.weight'),
        ('module.module._orig_mod.norm.weight', 'norm.weight'),
        ('backbone._fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.fc.bias', 'backbone.blocks.0.fc.bias'),
        ('submodule.weight', 'submodule.weight'),
        ('module', ''),
    ],
)
def test_wrappers_leave_no_part_in_a_name(name, plain):
    assert strip_wrappers(name) == plain
