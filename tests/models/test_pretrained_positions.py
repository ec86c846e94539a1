# Copyright (c) addp_mm contributors. Apache-2.0.
"""Positions of every kind are resized, height and width separately, in modules of any package."""

import pytest
import torch
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.models.layers.fit_positions import fit_positions, grid_of
from addp_mm.models.layers.rel_pos import resize_rel_pos
from addp_mm.models.layers.rel_pos_table import resize_rel_pos_table
from addp_mm.models.pretrained import Pretrained


class Holder(nn.Module):
    """Attention with one table of positions under the name given, and the attributes given."""

    def __init__(self, name, *shape, buffers=None, **attributes):
        super().__init__()
        self.attn = nn.Module()
        self.attn.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        for buffer, value in (buffers or {}).items():
            self.attn.register_buffer(buffer, value)
        for key, value in attributes.items():
            setattr(self.attn, key, value)


def test_decomposed_relative_positions():
    module, tables = nn.Module(), dict(rel_pos_h=torch.randn(7, 4), rel_pos_w=torch.randn(7, 4))
    module.rel_pos_h, module.rel_pos_w = nn.Parameter(torch.zeros(11, 4)), nn.Parameter(torch.zeros(7, 4))
    weights = dict(tables)
    done = fit_positions(weights, module)
    assert done.resized == ['rel_pos_h (7, 4) -> (11, 4)']
    assert weights['rel_pos_w'] is tables['rel_pos_w']
    assert torch.equal(weights['rel_pos_h'], resize_rel_pos(tables['rel_pos_h'], 11))


@pytest.mark.parametrize('name', ['relative_position_bias_table', 'rel_pos_bias_table'])
@pytest.mark.parametrize('entries, own_entries', [(0, 0), (3, 3), (3, 0), (0, 3)])
def test_tables_of_biases(name, entries, own_entries):
    # 4x4 positions to 2x6: 49 distances to 33
    table = torch.randn(49 + entries, 2)
    module = Holder(name, 33 + own_entries, 2, window_size=(2, 6))
    nn.init.constant_(getattr(module.attn, name), 5.0)
    weights = {f'attn.{name}': table}
    done = fit_positions(weights, module)
    fitted = weights[f'attn.{name}']
    assert torch.equal(fitted[:33], resize_rel_pos_table(table[:49], (4, 4), (2, 6)))
    assert torch.equal(fitted[33:], table[49:] if entries and own_entries else torch.full((own_entries, 2), 5.0))
    assert done.resized == [f'attn.{name} ({49 + entries}, 2) -> ({33 + own_entries}, 2)']


def test_a_table_from_a_window_that_is_not_square(tmp_path):
    torch.save({'attn.relative_position_bias_table': torch.randn(33, 2)}, tmp_path / 'w.pth')
    module = Holder('relative_position_bias_table', 49, 2)  # read as a square window
    with pytest.raises(CheckpointError, match=r'w\.pth.*table \(33, 2\) has 33 rows.*pos_grid=\(height, width\)'):
        Pretrained(str(tmp_path / 'w.pth'))(module)
    Pretrained(str(tmp_path / 'w.pth'), pos_grid=(2, 6))(module)
    assert module.attn.relative_position_bias_table.any()


def test_tables_of_indices_stay_the_modules_own():
    index = torch.arange(16).reshape(4, 4)
    module = Holder('relative_position_bias_table', 9, 2, buffers=dict(relative_position_index=index))
    weights = {
        'attn.relative_position_bias_table': torch.randn(25, 2),
        'attn.relative_position_index': torch.ones(9, 9),
    }
    done = fit_positions(weights, module)
    assert list(weights) == ['attn.relative_position_bias_table']
    assert done.left_out == ['attn.relative_position_index']
    same = {'attn.relative_position_index': index + 1}
    assert fit_positions(same, module).left_out == []
    assert len(same) == 1


def test_a_map_of_positions():
    """VOLO's: (1, H, W, C)."""
    module = nn.Module()
    module.pos_embed = nn.Parameter(torch.zeros(1, 4, 8, 2))
    rows = torch.linspace(0, 1, 6)[:, None, None].expand(6, 6, 2)[None].clone()
    weights = dict(pos_embed=rows)
    done = fit_positions(weights, module)
    assert done.resized == ['pos_embed (1, 6, 6, 2) -> (1, 4, 8, 2)']
    assert (weights['pos_embed'][0].diff(dim=0) > 0).all()
    assert weights['pos_embed'][0].diff(dim=1).abs().max() < 1e-6
    again = dict(weights)
    assert fit_positions(again, module).resized == []
    assert again['pos_embed'] is weights['pos_embed']


def test_positions_of_a_distillation_token_are_dropped():
    module = nn.Module()
    module.grid_size, module.pos_embed = (4, 4), nn.Parameter(torch.zeros(1, 17, 2))
    table = torch.randn(1, 18, 2)
    weights = dict(pos_embed=table)
    fit_positions(weights, module)
    assert torch.equal(weights['pos_embed'], table[:, [0, *range(2, 18)]])


def test_grids_by_the_names_of_other_packages():
    module = nn.Module()
    assert grid_of(module) is None
    module.patch_embed = nn.Module()
    module.patch_embed.grid_size = (3, 5)
    assert grid_of(module) == (3, 5)
    module.patch_resolution = [2, 7]
    assert grid_of(module) == (2, 7)


def test_other_widths_are_left_to_the_load():
    module = nn.Module()
    module.grid_size, module.pos_embed = (4, 4), nn.Parameter(torch.zeros(1, 16, 2))
    weights = dict(pos_embed=torch.zeros(1, 9, 3), stranger=torch.zeros(1))
    assert fit_positions(weights, module).resized == []
    assert weights['pos_embed'].shape == (1, 9, 3)
