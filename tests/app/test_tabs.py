# Copyright (c) addp_mm contributors. Apache-2.0.
"""The functions behind the tabs Generate, Inpaint and Steps, without a browser."""

import zipfile
from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers.tiny_addp import MODEL, build_model
from mmengine.registry import DefaultScope
from PIL import Image

from addp_mm.apis import generate, inpaint
from addp_mm.errors import ConfigError
from addp_mm.generation import Guidance, SamplingSchedule
from addp_mm.generation.figures import code_colors, to_uint8
from addp_mm.registry import MODELS

gradio = pytest.importorskip('gradio', reason='the extra app is not installed')

from addp_mm.app.generate_tab import generated  # noqa: E402  # they need gradio
from addp_mm.app.image_generator import ImageGenerator  # noqa: E402
from addp_mm.app.image_views import zip_to_download  # noqa: E402
from addp_mm.app.inpaint_tab import drawn_mask, editor_value, inpainted  # noqa: E402
from addp_mm.app.messages import in_words  # noqa: E402
from addp_mm.app.sampling_controls import sampling_controls  # noqa: E402
from addp_mm.app.steps_tab import drawn, recorded  # noqa: E402

# steps, ratio, order, temperature, anneal, top-p, top-k, class, guidance, shape
CONTROLS = (3, 'linear', 'halton', 6.0, True, 0.9, 0, -1, 0.0, 'constant')


@pytest.fixture(scope='module')
def model():
    return build_model().requires_grad_(False).eval()


@pytest.fixture(scope='module')
def conditional():
    cfg = deepcopy(MODEL)
    for part in ('predictor', 'neck', 'head'):
        cfg[part]['token_space'] = dict(codebook_size=16, num_class_slots=3, fake_class_slot=2, num_classes=2)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg).requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def ignore(*args, **kwargs):
    pass


def test_generates_what_the_api_generates(model):
    seen = []
    images = generated(model, lambda done, **words: seen.append(done), 2, 5, *CONTROLS)
    wanted = generate(model, 2, 5, num_steps=3, ratio='linear', order='halton', top_p=0.9)
    assert np.array_equal(images, to_uint8(wanted.images))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_class_and_its_guidance_reach_the_model(conditional):
    controls = (*CONTROLS[:7], 1, 4.0, 'linear')
    options = dict(num_steps=3, ratio='linear', order='halton', top_p=0.9)
    wanted = generate(conditional, 2, 5, labels=[1, 1], guidance=Guidance(4.0, 'linear'), **options)
    images = generated(conditional, ignore, 2, 5, *controls)
    assert np.array_equal(images, to_uint8(wanted.images))
    assert not np.array_equal(images, generated(conditional, ignore, 2, 5, *CONTROLS))
    with pytest.raises(ConfigError, match='Guidance needs a class'):
        generated(conditional, ignore, 2, 5, *CONTROLS[:7], -1, 4.0, 'linear')


def test_the_controls_fit_the_model(model, conditional):
    def components(of, classes=()):
        with gradio.Blocks():
            return sampling_controls(ImageGenerator(of, classes))

    assert components(model)[0].maximum == 16  # tokens
    assert components(model)[7].parent.parent.visible is False
    label = components(conditional, ('coat', 'bag'))[7]
    assert label.choices == [('no class', -1), ('coat', 0), ('bag', 1)]
    assert label.parent.parent.visible is True
    assert components(conditional)[7].choices[1] == ('class 0', 0)


def test_the_controls_start_with_the_schedule(model):
    schedule = SamplingSchedule(8, 'power:2', 3.0, False, 'halton', 0.7, 5)
    with gradio.Blocks():
        given = sampling_controls(ImageGenerator(model, (), schedule))
        published = sampling_controls(ImageGenerator(model))
        hot = sampling_controls(ImageGenerator(model, (), SamplingSchedule(temperature=20.0)))[3]
    assert [control.value for control in given[:7]] == [8, 'power:2', 'halton', 3.0, False, 0.7, 5]
    assert (hot.value, hot.maximum, published[3].maximum) == (20.0, 20.0, 12.0)
    assert [control.value for control in published[:7]] == [16, 'cosine', 'confidence', 6.0, True, 1.0, 0]


@pytest.fixture
def messages(monkeypatch):
    found = []
    monkeypatch.setattr('gradio.Warning', lambda message, **options: found.append(message))
    return found


@pytest.mark.parametrize('seed', [None, -1, 2**32])
def test_a_wrong_seed_is_a_message_and_the_page_keeps_its_images(model, seed, messages):
    assert in_words(generated)(model, ignore, 1, seed, *CONTROLS) == gradio.skip()
    assert messages == ['Seed must be a whole number from 0 to 4294967295']


def test_messages_are_escaped_and_other_errors_are_not_hidden(messages):
    def fail(error):
        raise error

    in_words(fail)(ConfigError('<b>name</b>'))
    assert messages == ['&lt;b&gt;name&lt;/b&gt;']
    with pytest.raises(RuntimeError, match='a fault of ours'):
        in_words(fail)(RuntimeError('a fault of ours'))


def test_the_zip_has_the_images(tmp_path):
    images = [np.full((4, 4, 3), value, np.uint8) for value in (3, 200)]
    with zipfile.ZipFile(zip_to_download(images, tmp_path).value['path']) as files:
        assert files.namelist() == ['000000.png', '000001.png']
        for name, image in zip(files.namelist(), images, strict=True):
            with files.open(name) as file:
                assert np.array_equal(np.asarray(Image.open(file)), image)


def painted(rows, columns, side=128):
    layer = np.zeros((side, side, 4), np.uint8)
    layer[rows, columns] = 255
    return dict(layers=[layer])


def test_a_drawing_marks_the_pixels_that_it_touches():
    mask = drawn_mask(painted(slice(8, 9), slice(23, 25)), (16, 16))  # 8 canvas pixels for each pixel
    assert np.argwhere(mask).tolist() == [[1, 2], [1, 3]]
    for empty in (None, dict(layers=[]), painted(slice(0), slice(0))):
        assert not drawn_mask(empty, (16, 16)).any()


def test_the_editor_shows_images_of_any_size():
    for size, shown in [((16, 16), (512, 512)), ((300, 200), (600, 400)), ((2000, 1), (1024, 1))]:
        assert editor_value(np.zeros((*size, 3), np.uint8))['background'].shape == (*shown, 3)


@pytest.mark.parametrize('size, canvas', [((16, 16), (0, 0, 0, 0)), ((37, 22), (0, 4, 8, 0)), ((1, 1), (4, 0, 0, 4))])
def test_inpaints_images_of_any_size_as_the_api_does(model, size, canvas):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    done = []
    masked, samples = inpainted(
        model, lambda count, **words: done.append(count), image, painted(slice(64), slice(64)), canvas, 2, 7, *CONTROLS
    )
    left, top, right, bottom = canvas
    pixels = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode='edge')
    mask = np.ones(pixels.shape[:2], bool)
    mask[top : top + size[0], left : left + size[1]] = drawn_mask(painted(slice(64), slice(64)), size)
    images = torch.from_numpy(pixels).permute(2, 0, 1).expand(2, -1, -1, -1) / 255
    options = dict(num_steps=3, ratio='linear', order='halton', top_p=0.9)
    wanted = inpaint(model, images, torch.from_numpy(mask).expand(2, -1, -1), 7, **options).images
    assert np.array_equal(samples, to_uint8(wanted))
    assert np.array_equal(samples[0][~mask], pixels[~mask])
    assert not np.array_equal(samples[0][mask], samples[1][mask])
    assert (masked[mask] == 128).all()
    assert done[-1][0] == done[-1][1] == len(done)


def test_partly_masked_tokens_are_grey_as_the_model_sees_them(model):
    image = np.full((18, 18, 3), 9, np.uint8)
    masked, samples = inpainted(model, ignore, image, None, (0, 0, 1, 0), 1, 0, *CONTROLS)
    assert masked.shape == (18, 19, 3)
    assert (masked[:, 16:] == 128).all()
    assert (masked[:, :16] == 9).all()
    assert (samples[0][:, :18] == 9).all()


def test_nothing_and_too_much_to_inpaint_are_refused_with_numbers(model):
    image = np.zeros((400, 600, 3), np.uint8)
    with pytest.raises(ConfigError, match='nothing is to be generated: draw on the image, or add new canvas'):
        inpainted(model, ignore, image, None, (0, 0, 0, 0), 2, 0, *CONTROLS)
    drawing = painted(slice(None), slice(None))
    with pytest.raises(
        ConfigError, match=r'(\d+) tiles of 16 x 16 pixels for each of 2 samples, (\d+) in all; the page'
    ):
        inpainted(model, ignore, image, drawing, (0, 0, 0, 0), 2, 0, *CONTROLS)


def test_the_steps_are_those_of_the_api(model):
    steps, figure = recorded(model, ignore, 5, *CONTROLS)
    wanted = generate(model, 1, 5, num_steps=3, ratio='linear', order='halton', top_p=0.9, keep_steps=True).steps
    assert len(steps) == 4
    assert figure.shape[2] == 3
    words = [drawn(model, step)[2] for step in steps]
    assert words[0] == 'Before the first step: 0 of 16 tokens are known.'
    assert words[3] == 'After step 3: 16 of 16 tokens are known.'
    tokens, pixels, sentence = drawn(model, steps[2])
    known = (~wanted[2].mask[0]).sum()
    assert sentence == f'After step 2: {known} of 16 tokens are known.'
    assert np.array_equal(pixels[::24, ::24], to_uint8(wanted[2].images)[0])
    cells = tokens[::96, ::96].reshape(16, 3)[~wanted[2].mask[0]]
    assert np.array_equal(cells, code_colors(16)[wanted[2].ids[0][~wanted[2].mask[0]]])
