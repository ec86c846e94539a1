# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import WEIGHT_INITIALIZERS
from safetensors.torch import save_file
from torch import nn

import addp_mm.models.pretrained  # noqa: F401
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.models.pretrained import Pretrained


class Stem(BaseModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 4)

    def init_weights(self):
        nn.init.constant_(self.fc.weight, 7.0)


class Tiny(BaseModule):
    """A module with positions on a grid (h, w) after ``extra`` tokens, and a child with weights."""

    def __init__(self, grid=(4, 4), width=4, extra=1, init_cfg=None):
        super().__init__(init_cfg)
        self.grid_size = grid
        self.stem = Stem()
        self.pos_embed = nn.Parameter(torch.zeros(1, extra + math.prod(grid), width))
        self.norm = nn.LayerNorm(width)

    def init_weights(self):
        super().init_weights()
        if not (isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained'):
            nn.init.zeros_(self.pos_embed)  # as mmpretrain's backbones do


def file_of(tmp_path, module, wrap=lambda state: dict(state_dict=state), prefix='', name='w.pth'):
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    path = tmp_path / name
    state = {prefix + key: value.clone() for key, value in module.state_dict().items()}
    if name.endswith('.safetensors'):
        save_file(state, path)
    else:
        torch.save(wrap(state), path)
    return str(path)


def equal(module, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    'wrap',
    [
        lambda s: s,
        lambda s: dict(state_dict=s, meta={}),
        lambda s: dict(model=s, epoch=1),
        lambda s: dict(module=s),
        lambda s: dict(model={f'module.{key}': value for key, value in s.items()}),
    ],
)
def test_every_wrapping_is_found(tmp_path, wrap):
    source, target = Tiny(), Tiny()
    Pretrained(file_of(tmp_path, source, wrap), strict=True)(target)
    assert equal(source, target)


def test_safetensors_and_shipped_files(tmp_path, monkeypatch):
    monkeypatch.setattr('addp_mm.checkpoints.reading.ASSETS', tmp_path)
    source, target = Tiny(), Tiny()
    file_of(tmp_path, source, prefix='backbone.', name='tiny.safetensors')
    Pretrained('addp_mm://tiny.safetensors', prefix='backbone')(target)
    assert equal(source, target)


def test_init_cfg_loads_last_and_nothing_is_initialised_again(tmp_path):
    source = Tiny()
    path = file_of(tmp_path, source, prefix='backbone.')
    target = Tiny(init_cfg=dict(type='addp_mm.Pretrained', checkpoint=path, prefix='backbone.'))
    target.init_weights()
    assert equal(source, target)
    assert WEIGHT_INITIALIZERS.get('addp_mm.Pretrained') is Pretrained


def test_children_without_weights_in_the_file_are_initialised(tmp_path):
    source = Tiny()
    path = file_of(tmp_path, source, wrap=lambda s: {k: v for k, v in s.items() if not k.startswith('stem')})
    target = Tiny(init_cfg=dict(type='addp_mm.Pretrained', checkpoint=path))
    target.init_weights()
    assert (target.stem.fc.weight == 7).all()
    assert torch.equal(target.norm.weight, source.norm.weight)


def ramp(grid, extra=1):
    """Positions with channels height and width in [0, 1] at pixel centres. Extra tokens are 9."""
    h, w = ((torch.arange(n) + 0.5) / n for n in grid)
    table = torch.stack([h[:, None].expand(grid), w[None].expand(grid)], dim=-1).reshape(1, -1, 2)
    return torch.cat([torch.full((1, extra, 2), 9.0), table], dim=1)


@pytest.mark.parametrize('source, target', [((4, 4), (8, 8)), ((4, 4), (6, 12)), ((8, 8), (16, 5))])
def test_positions_are_resized_in_height_and_width(tmp_path, source, target):
    torch.save(dict(pos_embed=ramp(source)), tmp_path / 'w.pth')
    module = Tiny(target, width=2)
    Pretrained(str(tmp_path / 'w.pth'))(module)
    assert torch.equal(module.pos_embed[:, :1], torch.full((1, 1, 2), 9.0))
    got, want = (x.detach()[0, 1:].reshape(*target, 2) for x in (module.pos_embed, ramp(target)))
    # Bicubic keeps a ramp away from the border, where it has no neighbours.
    border = [math.ceil(2.5 * t / s) for s, t in zip(source, target, strict=True)]
    inner = [slice(b, n - b) for b, n in zip(border, target, strict=True)]
    torch.testing.assert_close(got[inner[0], inner[1]], want[inner[0], inner[1]], atol=1e-2, rtol=0)
    assert (got[:, :, 0].diff(dim=0) > 0).all()
    assert (got[:, :, 1].diff(dim=1) > 0).all()
    assert got[:, :, 0].std(dim=1).max() < 1e-5
    assert got[:, :, 1].std(dim=0).max() < 1e-5


def test_positions_of_a_map_that_is_not_square(tmp_path):
    torch.save(dict(pos_embed=ramp((2, 6))), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=r'w\.pth.*pos_embed \(1, 13, 2\).*pos_grid'):
        Pretrained(str(tmp_path / 'w.pth'))(Tiny((4, 4), width=2))
    with pytest.raises(CheckpointError, match=r'not pos_grid=\(3, 6\)'):
        Pretrained(str(tmp_path / 'w.pth'), pos_grid=(3, 6))(Tiny((4, 4), width=2))
    module = Tiny((4, 4), width=2)
    Pretrained(str(tmp_path / 'w.pth'), pos_grid=(2, 6))(module)
    heights = module.pos_embed.detach()[0, 1:, 0].reshape(4, 4)
    assert (heights.diff(dim=0) > 0).all()


def test_a_square_is_not_taken_for_the_modules_map_and_one_more_token(tmp_path, monkeypatch):
    """A class token and 4 x 4 positions have as many rows as two tokens and 3 x 5."""
    torch.save(dict(pos_embed=ramp((4, 4))), tmp_path / 'w.pth')
    module = Tiny((3, 5), width=2)
    lines = []
    logger = MMLogger.get_instance('test_square')
    monkeypatch.setattr(logger, 'handle', lambda record: lines.append(record.msg))
    Pretrained(str(tmp_path / 'w.pth'))(module)
    sentence = 'read as 4x4 positions; if it is 3x5 positions and 2 tokens, set pos_grid=(3, 5)'
    assert sentence in ''.join(lines)
    heights, widths = module.pos_embed.detach()[0, 1:].reshape(3, 5, 2).unbind(-1)
    assert (heights.diff(dim=0) > 0).all()
    assert heights.std(dim=1).max() < 1e-5
    assert widths.std(dim=0).max() < 1e-5
    torch.save(dict(pos_embed=ramp((3, 5), extra=2)), tmp_path / 'w.pth')
    Pretrained(str(tmp_path / 'w.pth'), pos_grid=(3, 5))(module)
    assert torch.equal(module.pos_embed, ramp((3, 5)))


def test_class_token_of_one_side_only(tmp_path):
    torch.save(dict(pos_embed=ramp((4, 4))), tmp_path / 'with.pth')
    torch.save(dict(pos_embed=ramp((4, 4), extra=0)), tmp_path / 'without.pth')
    module = Tiny((4, 4), width=2, extra=0)
    Pretrained(str(tmp_path / 'with.pth'))(module)
    assert torch.equal(module.pos_embed, ramp((4, 4), extra=0))
    module = Tiny((4, 4), width=2)
    nn.init.constant_(module.pos_embed, 5.0)
    Pretrained(str(tmp_path / 'without.pth'))(module)
    assert (module.pos_embed[:, 0] == 5).all()
    assert torch.equal(module.pos_embed[:, 1:], ramp((4, 4), extra=0))


def test_nothing_matches(tmp_path):
    path = file_of(tmp_path, nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r'no weight matches Tiny.*weight, bias.*pos_embed'):
        Pretrained(path)(Tiny())


def test_a_missing_prefix(tmp_path):
    path = file_of(tmp_path, Tiny(), prefix='encoder.')
    with pytest.raises(CheckpointError, match=r"no weight that starts with 'backbone\.'.*encoder\."):
        Pretrained(path, prefix='backbone.')(Tiny())


def test_wrong_width_names_key_and_shapes(tmp_path):
    path = file_of(tmp_path, Tiny(width=8), prefix='backbone.')
    with pytest.raises(CheckpointError) as error:
        Pretrained(path, prefix='backbone.')(Tiny(width=4))
    assert 'backbone.norm.weight is [8] in the checkpoint and [4] in the model' in str(error.value)
    assert 'backbone.pos_embed is [1, 17, 8] in the checkpoint and [1, 17, 4]' in str(error.value)
    assert path in str(error.value)
    assert 'embed_dims' in str(error.value)


def test_strict(tmp_path):
    path = file_of(
        tmp_path,
        Tiny(),
        wrap=lambda s: {**{k: v for k, v in s.items() if k != 'norm.bias'}, 'head.weight': torch.zeros(1)},
    )
    Pretrained(path)(Tiny())
    with pytest.raises(CheckpointError, match=r'missing norm\.bias; unexpected head\.weight'):
        Pretrained(path, strict=True)(Tiny())


def test_report(tmp_path, monkeypatch):
    path = file_of(
        tmp_path,
        Tiny(),
        wrap=lambda s: {**{k: v for k, v in s.items() if k != 'norm.bias'}, 'head.weight': torch.zeros(1)},
    )
    lines = []
    monkeypatch.setattr(MMLogger.get_instance('test_report'), 'handle', lambda record: lines.append(record.msg))
    Pretrained(path)(Tiny((2, 8)))
    assert 'read as 2x8' in lines[-2]
    assert 'resized none' in lines[-1]
    Pretrained(path)(Tiny((5, 5)))
    assert 'left out head.weight (not in the module), missing norm.bias (they stay as initialised)' in lines[-1]
    assert 'loaded 4, resized pos_embed (1, 17, 4) -> (1, 26, 4)' in lines[-1]


def test_addp_vit_for_detection_loads_a_pretrained_one(tmp_path):
    from addp_mm.models.backbones import ADDPViT

    arch = dict(embed_dims=16, num_layers=2, num_heads=2)
    source = ADDPViT(arch, img_size=32, patch_size=8)
    path = file_of(tmp_path, source, prefix='backbone.')
    target = ADDPViT(
        arch,
        img_size=(64, 48),
        patch_size=8,
        with_cls_token=False,
        window_size=2,
        global_blocks=(1,),
        use_rel_pos=True,
        out_type='featmap',
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=path, prefix='backbone.'),
    )
    target.init_weights()
    assert torch.equal(target.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    same = ADDPViT(arch, img_size=32, patch_size=8, with_cls_token=False, out_type='featmap')
    Pretrained(path, prefix='backbone.')(same)
    assert torch.equal(same.pos_embed, source.pos_embed[:, 1:])
    wide = ADDPViT({**arch, 'embed_dims': 32}, img_size=32, patch_size=8)
    message = r'backbone\.cls_token is \[1, 1, 16\] in the checkpoint and \[1, 1, 32\](.|\n)*more'
    with pytest.raises(CheckpointError, match=message):
        Pretrained(path, prefix='backbone.')(wide)
