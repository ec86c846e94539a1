# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/app.py: options, and mistakes in one line."""

import asyncio
import runpy
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.recipes import load_recipe
from helpers.tiny_addp import build_model, write_config

from addp_mm.app.own_origin import OwnOrigin
from addp_mm.datasets.fashion.fashion_mnist import CLASSES
from addp_mm.errors import UserError
from addp_mm.generation import SamplingSchedule
from addp_mm.label_maps.config_classifier import class_names

TOOL = runpy.run_path(str(Path(__file__).parents[2] / 'tools/app.py'), run_name='tool')
SEGMENTOR = 'upernet_addp-vit-nano-p8_from-scratch_1xb16-fp32-400i_fashion-scenes-64px'


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['config.py'], 'CONFIG needs its CHECKPOINT after it'),
        (['--det-config', 'a.py'], '--det-config needs --det-checkpoint, too'),
        (['--seg-checkpoint', 'a.pth'], '--seg-checkpoint needs --seg-config, too'),
        (['--port', '0'], '--port: 0 must be from 1 to 65535'),
        (['--max-upload-mb', '0'], '--max-upload-mb: 0 must be at least 1'),
        (['--max-queue', 'x'], "--max-queue: invalid int value: 'x'"),
    ],
)
def test_wrong_options_are_named(arguments, words, capsys):
    with pytest.raises(SystemExit, match='2'):
        TOOL['parse_args'](arguments)
    assert words in capsys.readouterr().err


def test_it_listens_at_this_computer_unless_told_otherwise():
    assert TOOL['parse_args']([]).host == '127.0.0.1'
    assert all(map(TOOL['is_loopback'], ('127.0.0.1', '127.8.8.8', '::1', 'localhost')))
    assert not any(map(TOOL['is_loopback'], ('0.0.0.0', '::', '192.168.0.7', 'example.org')))


@pytest.mark.parametrize('length, status', [('9', 200), ('11', 413), ('\xb2', 413), ('-1', 413), ('', 413)])
def test_a_body_has_a_length_in_digits_up_to_the_limit(length, status):
    async def app(scope, receive, send):
        await send(dict(type='http.response.start', status=200))

    async def send(message):
        sent.append(message)

    sent = []
    headers = [(b'host', b'localhost'), (b'content-length', length.encode('latin1'))]
    asyncio.run(OwnOrigin(app, '127.0.0.1', 10)(dict(type='http', headers=headers), None, send))
    assert sent[0]['status'] == status


def test_a_used_port_and_a_missing_package_are_one_line(monkeypatch):
    found = TOOL['main'].__globals__
    monkeypatch.setitem(found, 'find_spec', lambda name: name)
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = str(server.getsockname()[1])
        with pytest.raises(SystemExit, match=f'--host 127.0.0.1 --port {port}: the page cannot listen there'):
            TOOL['main'](['--port', port])
    monkeypatch.setitem(found, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit, match=r"needs Gradio, which is not installed: pip install 'addp_mm\[app\]'"):
        TOOL['main']([])


@pytest.mark.parametrize('host, warned', [('127.0.0.1', False), ('0.0.0.0', True)])
def test_it_serves_the_given_model_until_it_is_interrupted(host, warned, tmp_path, monkeypatch, capsys):
    pytest.importorskip('gradio', reason='the extra app is not installed')
    calls = []

    @contextmanager
    def served(*arguments):
        calls.append(arguments)
        yield

    def interrupt(event):
        raise KeyboardInterrupt

    monkeypatch.setattr('addp_mm.app.page.served', served)
    monkeypatch.setattr('threading.Event.wait', interrupt)
    torch.save(build_model().state_dict(), tmp_path / 'addp.pth')
    with socket.create_server((host, 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(SystemExit, match='130'):
        TOOL['main']([str(write_config(tmp_path)), str(tmp_path / 'addp.pth'), '--host', host, '--port', str(port)])
    ((models, *rest),) = calls
    assert models.generator.model.latent_size == (4, 4)
    assert models.class_generator is None
    assert models.detector.classes == CLASSES
    assert models.segmentor.classes == ('background', *CLASSES)
    assert rest == [host, port, 10, 16]
    output = capsys.readouterr()
    assert f'the page is at http://{host}:{port}' in output.out
    assert ('shows the page to other computers' in output.out) is warned
    assert 'interrupted: the page is closed' in output.err


@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_a_tab_without_its_package_has_no_model(kind, monkeypatch):
    pytest.importorskip('gradio', reason='the extra app is not installed')
    load = TOOL['load_dense']
    monkeypatch.setitem(load.__globals__, 'find_spec', lambda name: None)
    assert load(TOOL['parse_args']([]), kind, 'cpu') is None


def test_names_of_classes_come_from_the_training_data():
    names = class_names('addp_vit-nano-p8_class-cond_2xb16-fp32-4k_fashion-scenes-64px')
    assert tuple(names) == tuple(CLASSES)
    assert class_names(TOOL['NANO'][0]) == []


def test_the_schedule_at_the_start_is_that_of_the_previews(tmp_path):
    schedule = TOOL['preview_schedule']
    (hook,) = load_recipe(f'pretrain/{TOOL["NANO"][0]}.py').custom_hooks
    assert schedule(TOOL['NANO'][0]) == SamplingSchedule.of(hook.sampler) != SamplingSchedule()
    assert schedule(str(write_config(tmp_path))) == SamplingSchedule()


def test_a_wrong_config_or_checkpoint_names_its_option(tmp_path):
    pytest.importorskip('gradio', reason='the extra app is not installed')
    from addp_mm.app.dense_predictor import load_predictor

    config = str(write_config(tmp_path))
    torch.save(build_model().state_dict(), tmp_path / 'addp.pth')
    weights = str(tmp_path / 'addp.pth')
    for arguments, words in [
        ((config, 'none.pth', 'det'), '--det-checkpoint none.pth'),
        (('none.py', weights, 'seg'), '--seg-config none.py: '),
        ((config, weights, 'det'), '--det-config .*: it has no model or no test_dataloader'),
        ((SEGMENTOR, weights, 'det'), '--det-config .*: it builds EncoderDecoder, which is not a detector'),
        ((SEGMENTOR, weights, 'seg'), '--seg-checkpoint: .*addp.pth has another width'),
    ]:
        with pytest.raises(UserError, match=words):
            load_predictor(*arguments)
