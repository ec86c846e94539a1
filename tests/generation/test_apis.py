# Copyright (c) addp_mm contributors. Apache-2.0.
"""The functions of addp_mm.apis on a tiny model."""

import pytest
import torch
from helpers.tiny_addp import build_model, write_config
from mmengine.config import Config

from addp_mm.apis import extract_features, generate, inpaint, load_model
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.config.config_file import ConfigError


@pytest.fixture(scope='module')
def model():
    return build_model().eval()


def test_generation_with_addp_does_not_depend_on_the_batch_size(model):
    whole = generate(model, 5, seed=3, num_steps=4, keep_steps=True)
    parts = generate(model, 5, seed=3, num_steps=4, batch_size=2)
    assert whole.images.shape == (5, 3, 16, 16)
    assert whole.images.min() >= 0
    assert whole.images.max() <= 1
    assert torch.equal(parts.ids, whole.ids)
    torch.testing.assert_close(parts.images, whole.images, atol=1e-5, rtol=0)
    assert len(whole.steps) == 5
    assert not whole.steps[-1].mask.any()
    assert not torch.equal(generate(model, 5, seed=4, num_steps=4).ids, whole.ids)


def test_inpainting_with_addp_keeps_pixels_outside_the_mask(model):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[0, 4:9, 4:8] = True
    mask[1, :, :4] = True
    pasted = inpaint(model, images, mask, num_steps=3)
    # masked pixels only, also in tokens that the mask cuts
    assert torch.equal(pasted.images.ne(images).any(1), mask)
    expected = torch.zeros(2, 4, 4, dtype=torch.bool)
    expected[0, 1:3, 1] = True
    expected[1, :, 0] = True
    plain = inpaint(model, images, expected.flatten(1), num_steps=3, paste=False)
    assert torch.equal(plain.ids, pasted.ids)
    assert torch.equal(plain.ids[~expected.flatten(1)], model.tokenizer.encode(images)[0][~expected.flatten(1)])
    with pytest.raises(ValueError, match=r'over pixels, \(B, 32, 32\), or over tokens, \(B, 64\).*\(2, 16, 16\)'):
        inpaint(model, torch.rand(2, 3, 32, 32), mask)
    with pytest.raises(ValueError, match=r'\(B, 3, H, W\).*\(2, 1, 16, 16\)'):
        inpaint(model, images[:, :1], mask)
    with pytest.raises(ValueError, match='1 mask'):
        inpaint(model, images, mask[:1])


IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    'take',
    [lambda model, images: inpaint(model, images, torch.ones(2, 16), num_steps=1), extract_features],
    ids=['inpaint', 'extract_features'],
)
@pytest.mark.parametrize(
    'images, message',
    [
        (IMAGES.mul(255).byte(), r'uint8 from 0 to 25\d: divide bytes by 255'),
        (IMAGES * 255, r'float32 .* to 25.*divide bytes by 255'),
        (IMAGES * 2 - 1, r'from -0\.99'),
        (IMAGES.clone().index_fill_(3, torch.tensor([3]), torch.nan), '96 non-finite'),
        (IMAGES[:, :1], r'\(B, 3, .*\(2, 1, 16, 16\)'),
        (IMAGES[0], r'\(3, 16, 16\)'),
    ],
    ids=['bytes', 'scale-of-bytes', 'normalised', 'nan', 'channels', 'one-image'],
)
def test_images_of_another_scale_or_shape_are_refused(model, take, images, message):
    with pytest.raises(ValueError, match=message):
        take(model, images)


def test_rounding_beyond_the_range_is_clamped(model):
    beyond, mask = IMAGES.round() * (1 + 2e-4) - 1e-4, torch.zeros(2, 16, dtype=torch.bool)
    assert torch.equal(inpaint(model, beyond, mask, num_steps=1).images, IMAGES.round())
    assert torch.equal(extract_features(model, beyond), extract_features(model, IMAGES.round()))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(batch_size=-1), 'batch size must be at least 1, got 2 and -1'),
        (dict(batch_size=0), 'batch size must be at least 1, got 2 and 0'),
        (dict(images=IMAGES[:0], mask=torch.ones(0, 16, 16)), 'number of images .* got 0'),
        (dict(mask=torch.ones(2, 1, 16, 16)), r'over pixels, \(B, 16, 16\).* got \(2, 1, 16, 16\)'),
        (dict(mask=torch.ones(2, 16, 8)), r'over pixels, \(B, 16, 16\).* got \(2, 16, 8\)'),
        (dict(mask=torch.ones(2, 9)), r'over tokens, \(B, 16\).* got \(2, 9\)'),
        (dict(mask=torch.ones(16, 16)), r'16 mask'),
        (dict(mask=torch.full((2, 16, 16), 0.3)), 'must be bool, or 0 and 1, got torch.float32 .* mask > 0.5'),
        (dict(mask=torch.full((2, 16, 16), torch.nan)), 'must be bool, or 0 and 1'),
    ],
    ids=[
        'negative-batch',
        'empty-batch',
        'no-images',
        'mask-with-channel',
        'mask-of-other-size',
        'other-tokens',
        'one-mask',
        'soft-mask',
        'mask-of-nan',
    ],
)
def test_arguments_of_inpainting_that_do_not_fit_are_named(model, change, message):
    with pytest.raises(ValueError, match=message):
        inpaint(model, **dict(dict(images=IMAGES, mask=torch.ones(2, 16, 16), num_steps=1), **change))


def test_features_have_the_promised_shapes_at_any_size(model):
    images = torch.rand(2, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    raw = extract_features(model, images, 'raw')
    assert raw.shape == (2, 1 + 6 * 4, 8)
    featmap = extract_features(model, images, 'featmap')
    assert torch.equal(featmap[:, :, 2, 3], raw[:, 1 + 2 * 4 + 3])
    torch.testing.assert_close(extract_features(model, images), featmap.mean((2, 3)))
    assert torch.equal(extract_features(model, images, 'cls_token'), raw[:, 0])
    with pytest.raises(ValueError, match='out_type'):
        extract_features(model, images, 'logits')


def test_features_leave_register_tokens_out():
    model, images = build_model(num_register_tokens=2).eval(), torch.rand(2, 3, 16, 16)
    raw = extract_features(model, images, 'raw')
    assert raw.shape == (2, 1 + 2 + 4 * 4, 8)
    featmap = extract_features(model, images, 'featmap')
    assert torch.equal(featmap.flatten(2).transpose(1, 2), raw[:, 3:])
    torch.testing.assert_close(extract_features(model, images), raw[:, 3:].mean(1))


def test_features_of_a_padded_image_are_a_map_of_all_patches():
    model, images = build_model(pad_to_patch=True).eval(), torch.rand(1, 3, 18, 16)
    featmap = extract_features(model, images, 'featmap')
    raw = extract_features(model, images, 'raw')
    assert featmap.shape == (1, 8, 5, 4)
    assert torch.equal(featmap.flatten(2).transpose(1, 2), raw[:, 1:])


def test_a_saved_model_loads_and_generates_the_same(model, tmp_path):
    config = write_config(tmp_path)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'addp.pth')
    loaded = load_model(config, tmp_path / 'addp.pth')
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(generate(loaded, 2, num_steps=2).images, generate(model, 2, num_steps=2).images)


def test_checkpoints_that_do_not_fit_are_refused(model, tmp_path):
    config = write_config(tmp_path)
    weights = model.state_dict()

    def attempt(state):
        torch.save(dict(state_dict=state), tmp_path / 'addp.pth')
        return load_model(config, tmp_path / 'addp.pth')

    with pytest.raises(CheckpointError, match='missing neck.mask_token'):
        attempt({key: value for key, value in weights.items() if key != 'neck.mask_token'})
    with pytest.raises(CheckpointError, match='unexpected neck.extra'):
        attempt({**weights, 'neck.extra': torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r'another shape: neck.mask_token is \[1, 1, 9\]'):
        attempt({**weights, 'neck.mask_token': torch.zeros(1, 1, 9)})
    with pytest.raises(CheckpointError, match='has no tokenizer, and .* has no init_cfg'):
        attempt({key: value for key, value in weights.items() if not key.startswith('tokenizer.')})
    cfg = Config.fromfile(config)
    cfg.model.tokenizer.init_cfg = dict(type='addp_mm.Pretrained', checkpoint='gone.pth')
    with pytest.raises(CheckpointError, match=r'has no tokenizer, .* model.tokenizer.init_cfg .*: gone.pth does not'):
        load_model(cfg, tmp_path / 'addp.pth')
    backbone = {key: value for key, value in weights.items() if key.startswith('backbone.')}
    with pytest.raises(
        CheckpointError, match='addp.pth has no neck and no head, .* are in the checkpoint of the pre-training'
    ):
        attempt(backbone)
    with pytest.raises(CheckpointError, match='addp.pth has no backbone and no neck and no head'):
        attempt({key.removeprefix('backbone.'): value for key, value in backbone.items()})
    with pytest.raises(FileNotFoundError, match='none.pth'):
        load_model(config, tmp_path / 'none.pth')
    with pytest.raises(ConfigError, match='none.py'):
        load_model(tmp_path / 'none.py', tmp_path / 'addp.pth')


def test_a_config_of_another_kind_is_refused(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / 'addp.pth')
    (tmp_path / 'vit.py').write_text('model = dict(type="addp_mm.ADDPViT", arch="nano")\n')
    with pytest.raises(ConfigError, match='builds ADDPViT'):
        load_model(tmp_path / 'vit.py', tmp_path / 'addp.pth')
