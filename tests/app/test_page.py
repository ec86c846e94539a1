# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page in a real browser: each tab once, bad uploads, nothing from the network."""

import io
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recipes import load_recipe
from mmengine.registry import DefaultScope
from PIL import Image

from addp_mm.apis import generate, load_model
from addp_mm.datasets.fashion.fashion_mnist import CLASSES
from addp_mm.generation import Guidance
from addp_mm.generation.figures import to_uint8
from addp_mm.registry import MODELS

pytest.importorskip('gradio', reason='the extra app is not installed')
page_driver = pytest.importorskip('helpers.page_driver', reason='playwright is not installed')
BROWSER = page_driver.find_browser()
RECIPES = dict(
    det=('mmdet', 'mask-rcnn_addp-vit-nano-p8', 'mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px'),
    seg=('mmseg', 'upernet_addp-vit-nano-p8', 'upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px'),
)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """The shipped ADDP without and with classes; random detector and segmentor."""
    from addp_mm.app.dense_predictor import load_predictor
    from addp_mm.app.image_generator import ImageGenerator
    from addp_mm.app.page import PageModels

    folder = tmp_path_factory.mktemp('weights')
    dense = {}
    for kind, (scope, model, config) in RECIPES.items():
        cfg = load_recipe(f'_base_/models/{model}.py').model
        cfg.backbone.init_cfg = None
        with DefaultScope.overwrite_default_scope(scope):
            torch.save(dict(state_dict=MODELS.build(cfg).state_dict()), folder / f'{kind}.pth')
        dense[kind] = load_predictor(config, str(folder / f'{kind}.pth'), kind)
    addp, with_classes = (
        load_model(
            load_recipe(f'pretrain/addp_vit-nano-p8{kind}_2xb16-fp32-4k_fashion-scenes-64px.py'),
            f'addp_mm://addp_nano-p8{kind}.safetensors',
        )
        for kind in ('', '_class-cond')
    )
    return PageModels(ImageGenerator(addp), dense['det'], dense['seg'], ImageGenerator(with_classes, CLASSES))


@pytest.fixture
def lookups(monkeypatch):
    """Names of other computers that the server looks up."""
    found, original = [], socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host not in (None, '127.0.0.1', 'localhost', b'127.0.0.1'):
            found.append(host)
        return original(host, *args, **kwargs)

    monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=f'no browser on PATH: {", ".join(page_driver.BROWSERS)}')
def test_each_tab_works_in_a_browser(models, lookups, tmp_path):
    from addp_mm.app.page import served

    port = free_port()
    with (
        served(models, '127.0.0.1', port, max_upload_mb=1, max_queue=4),
        page_driver.visit(f'http://127.0.0.1:{port}/', BROWSER) as visitor,
    ):
        assert "default-src 'self'" in visitor.page.request.get(visitor.page.url).headers['content-security-policy']
        archive = page_driver.generate(visitor, tmp_path / 'generate.png', 'trouser', 2)
        visitor.open_tab('Detect')
        check_bad_uploads(visitor, tmp_path)
        assert 'score' in page_driver.predict(visitor, 'Detect', tmp_path / 'detect.png', least=0)
        shares = page_driver.predict(visitor, 'Segment', tmp_path / 'segment.png').splitlines()
        assert 'After step 7: ' in page_driver.watch_steps(visitor, 7, tmp_path / 'steps.png')
        visitor.open_tab('Inpaint')
        Image.new('RGB', (80, 60), 'teal').save(tmp_path / 'photo.jpg')
        visitor.upload(tmp_path / 'photo.jpg')
        visitor.page.get_by_text('The image has 80 x 60 pixels.').wait_for()
        page_driver.draw_and_inpaint(visitor, tmp_path / 'inpaint.png', samples=2)
        with visitor.page.expect_download() as download:
            visitor.page.get_by_text('Download all').locator('visible=true').click()
        samples = Path(download.value.path()).read_bytes()
        page_driver.stop_generating(visitor)
        again = page_driver.generate(visitor, tmp_path / 'again.png', 'trouser', 2)
        assert np.array_equal(images_of(again), images_of(archive))
    trousers = generate(
        models.class_generator.model, 8, seed=0, labels=[CLASSES.index('trouser')] * 8, guidance=Guidance(2.0)
    )
    assert np.array_equal(images_of(archive), to_uint8(trousers.images))
    assert images_of(samples).shape == (2, 60, 80, 3)
    assert sum(float(line.split()[-1].rstrip('%')) for line in shares[1:]) == pytest.approx(100, abs=1)
    assert (visitor.outside, visitor.complaints, lookups) == ([], [], [])


def images_of(archive: bytes) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        return np.stack([Image.open(io.BytesIO(files.read(name))) for name in sorted(files.namelist())])


def check_bad_uploads(visitor, folder):
    (folder / 'empty.png').touch()
    (folder / 'text.png').write_text('<b>no image</b>')
    (folder / 'large.png').write_bytes(b'0' * 2**21)
    Image.new('1', (6000, 5000)).save(folder / 'huge.png')
    for name, words in [
        ('empty.png', 'empty.png is empty (0 bytes)'),
        ('text.png', 'text.png cannot be read as an image'),
        ('huge.png', 'has 6000 x 5000 pixels; the page takes at most 25 megapixels'),
        ('large.png', 'maximum'),
    ]:
        visitor.upload(folder / name)
        assert words in visitor.message(), name
    visitor.complaints.clear()  # the browser reports the refused file, too
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(deep).save(folder / 'deep.png')
    visitor.upload(folder / 'deep.png')
    visitor.page.get_by_text('16 bits of each channel were scaled to 8').wait_for()
