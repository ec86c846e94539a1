# Copyright (c) addp_mm contributors. Apache-2.0.
"""The perceptual loss with the network of LPIPS and with a ViT, for any number of channels."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.models.losses import PerceptualLoss, VGG16Features
from addp_mm.models.losses.perceptual_loss import load_channel_weights
from addp_mm.registry import MODELS

WIDTHS = (64, 128, 256, 512, 512)
VIT = dict(
    type='addp_mm.ADDPViT',
    arch='nano',
    img_size=64,
    patch_size=8,
    pre_norm=True,
    out_indices=(2, 5),
    out_type='featmap',
    init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
)


def images(seed, channels=3, batch=2, side=32):
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(seed))


class Pyramid(nn.Module):
    """Two layers of features, as maps and as tokens."""

    def __init__(self, in_channels=3, pooled=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.patches = nn.Conv2d(in_channels, 5, 8, stride=8)
        self.pooled = pooled

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return tokens.mean(1) if self.pooled else (self.conv(x), tokens)


@pytest.fixture(scope='module')
def vit():
    loss = PerceptualLoss(dict(VIT))
    loss.init_weights()
    return loss


@pytest.fixture(scope='module')
def vgg():
    torch.manual_seed(0)
    return VGG16Features()


def write_channel_weights(path):
    weights = [torch.rand(1, width, 1, 1, generator=torch.Generator().manual_seed(i)) for i, width in enumerate(WIDTHS)]
    torch.save({f'lin{i}.model.1.weight': weight for i, weight in enumerate(weights)}, path)
    return [weight.flatten() for weight in weights]


def by_hand(layers_x, layers_y, channel_weights=None):
    total = []
    for i, (x, y) in enumerate(zip(layers_x, layers_y, strict=True)):
        x, y = (t.detach().double().numpy() for t in (x, y))
        x, y = (t / np.linalg.norm(t, axis=1, keepdims=True).clip(1e-10) for t in (x, y))
        scale = 1 / len(layers_x) if channel_weights is None else channel_weights[i].double().numpy()[:, None, None]
        total.append((scale * (x - y) ** 2).sum(1).mean((1, 2)))
    return sum(total)


def test_distance_of_a_vit_against_its_formula(vit):
    x, y = images(0, side=64), images(1, side=64)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = by_hand(vit.network((x - mean) / std), vit.network((y - mean) / std))
    np.testing.assert_allclose(vit(x, y).detach().numpy(), expected, rtol=1e-4)
    assert vit(x, x).abs().max() < 1e-6


def test_lpips_against_its_formula(vgg, tmp_path):
    weights = write_channel_weights(tmp_path / 'vgg.pth')
    loss = PerceptualLoss(vgg, channel_weights=str(tmp_path / 'vgg.pth'))
    loss.init_weights()
    x, y = images(0), images(1)
    expected = by_hand(vgg((x - loss.mean) / loss.std), vgg((y - loss.mean) / loss.std), weights)
    np.testing.assert_allclose(loss(x, y).detach().numpy(), expected, rtol=1e-4)


def test_lpips_equals_the_package(vgg, tmp_path):
    lpips = pytest.importorskip('lpips')
    theirs = lpips.LPIPS(net='vgg', pnet_rand=True, verbose=False)
    names = [name for name, _ in theirs.net.named_parameters()]
    theirs.net.load_state_dict(dict(zip(names, vgg.state_dict().values(), strict=True)))
    ours = PerceptualLoss(vgg, channel_weights='lpips')
    ours.init_weights()
    x, y = images(0), images(1)
    torch.testing.assert_close(ours(x, y), theirs(x, y, normalize=True).flatten(), rtol=1e-4, atol=1e-6)


def test_the_names_of_vgg_are_torchvisions(vgg, tmp_path):
    from torchvision.models import vgg16

    with torch.device('meta'):
        full = vgg16(weights=None)
    shapes = {key: value.shape for key, value in full.state_dict().items() if key.startswith('features.')}
    assert {key: value.shape for key, value in vgg.state_dict().items()} == shapes
    state = {key: value + 1 for key, value in vgg.state_dict().items()}
    torch.save({**state, 'classifier.6.bias': torch.zeros(1000)}, tmp_path / 'vgg16.pth')
    loss = PerceptualLoss(
        dict(
            type='addp_mm.VGG16Features',
            init_cfg=dict(type='addp_mm.Pretrained', checkpoint=str(tmp_path / 'vgg16.pth')),
        )
    )
    loss.init_weights()
    assert torch.equal(loss.network.features[28].weight, state['features.28.weight'])
    assert loss(images(0), images(1)).shape == (2,)


def test_gradients_reach_the_reconstruction_only(vit):
    x, y = images(0, side=64).requires_grad_(), images(1, side=64).requires_grad_()
    vit(x, y).sum().backward()
    assert x.grad.any()
    assert y.grad is None
    assert all(p.grad is None and not p.requires_grad for p in vit.network.parameters())


def test_the_network_is_frozen_and_not_a_submodule(vit):
    model = nn.Sequential(vit).train()
    assert not any(module.training for module in vit.network.modules())
    assert not list(model.parameters())
    assert not model.state_dict()
    copied = copy.deepcopy(vit)
    assert copied.network is not vit.network
    x, y = images(0, side=64), images(1, side=64)
    torch.testing.assert_close(copied(x, y), vit(x, y))


def test_the_network_moves_along():
    loss = PerceptualLoss(Pyramid()).double()
    assert loss.network.conv.weight.dtype == torch.float64
    assert loss(images(0).double(), images(1).double()).isfinite().all()


def test_random_weights_are_refused():
    loss = PerceptualLoss({key: value for key, value in VIT.items() if key != 'init_cfg'})
    loss.init_weights()
    with pytest.raises(CheckpointError, match='random weights.*init_cfg'):
        loss(images(0, side=64), images(1, side=64))
    late = PerceptualLoss(dict(VIT))
    with pytest.raises(CheckpointError, match='init_weights'):
        late(images(0, side=64), images(1, side=64))


def test_the_log_names_the_network(vgg, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr('addp_mm.models.losses.perceptual_loss.print_log', lambda text, logger: lines.append(text))
    write_channel_weights(tmp_path / 'vgg.pth')
    PerceptualLoss(vgg, channel_weights=str(tmp_path / 'vgg.pth')).init_weights()
    PerceptualLoss(dict(VIT)).init_weights()
    lpips, vit = lines
    assert lpips.startswith('perceptual loss: LPIPS: features of VGG16Features')
    assert 'vgg.pth' in lpips
    assert 'ADDPViT, weights from addp_mm://addp_nano-p8.safetensors' in vit
    assert 'not LPIPS' in vit


@pytest.mark.parametrize(
    'channels, groups',
    [
        (1, [(0, 0, 0)]),
        (2, [(0, 1, 1)]),
        (4, [(0, 1, 2), (3, 3, 3)]),
        (16, [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (12, 13, 14), (15, 15, 15)]),
    ],
)
def test_other_numbers_of_channels_are_compared_in_groups(channels, groups):
    loss = PerceptualLoss(Pyramid())
    x, y = images(0, channels), images(1, channels)
    expected = sum(loss(x[:, list(group)], y[:, list(group)]) for group in groups) / len(groups)
    torch.testing.assert_close(loss(x, y), expected)


def test_a_network_with_the_channels_of_the_image_needs_no_groups():
    loss = PerceptualLoss(Pyramid(in_channels=4), mean=[0.5] * 4, std=[0.5] * 4)
    x, y = images(0, 4), images(1, 4)
    features_x, features_y = (loss.network(2 * t - 1) for t in (x, y))
    first, second = (
        by_hand(
            [u if u.dim() == 4 else u.transpose(1, 2)[..., None]], [v if v.dim() == 4 else v.transpose(1, 2)[..., None]]
        )
        for u, v in zip(features_x, features_y, strict=True)
    )
    np.testing.assert_allclose(loss(x, y).detach().numpy(), (first + second) / 2, rtol=1e-4)


def test_backbones_of_mmpretrain_compare_too():
    loss = PerceptualLoss(MODELS.build(dict(type='mmpretrain.ResNet', depth=18, out_indices=(0, 1))))
    images = torch.rand(2, 3, 32, 32)
    assert not loss.network.training
    assert (loss(images.flip(2), images) > 0).all()


def test_input_size_resizes():
    seen = []
    network = Pyramid()
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    PerceptualLoss(network, input_size=16)(images(0), images(1))
    assert seen == [(2, 3, 16, 16)] * 2


def test_bad_options_are_refused(vgg, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='mean and std'):
        PerceptualLoss(Pyramid(), mean=[0.5])
    with pytest.raises(ValueError, match='featmap'):
        PerceptualLoss(Pyramid(pooled=True))(images(0), images(1))
    with pytest.raises(ValueError, match='same shape'):
        PerceptualLoss(Pyramid())(images(0), images(1, side=40))
    torch.save(dict(weight=torch.zeros(1)), tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='lin0'):
        load_channel_weights(str(tmp_path / 'other.pth'))
    write_channel_weights(tmp_path / 'vgg.pth')
    wrong = PerceptualLoss(Pyramid(), channel_weights=str(tmp_path / 'vgg.pth'))
    with pytest.raises(CheckpointError, match='init_weights'):
        wrong(images(0), images(1))
    wrong.init_weights()
    with pytest.raises(CheckpointError, match=r'\[4, 5\]'):
        wrong(images(0), images(1))
    monkeypatch.setattr('addp_mm.models.losses.perceptual_loss.find_spec', lambda name: None)
    with pytest.raises(CheckpointError, match='pip install lpips'):
        load_channel_weights('lpips')
