# Copyright (c) addp_mm contributors. Apache-2.0.
"""Import of the published code from a folder: training steps, sampling, and no traces of it."""

import os
import sys

import pytest
import torch
from helpers.published_layout import write_published_layout
from torch import Tensor

from addp_mm.benchmark.published_addp import PublishedADDP
from addp_mm.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    return write_published_layout(tmp_path / 'ADDP')


def test_a_training_step_updates_the_trained_weights(folder):
    torch.manual_seed(0)
    published = PublishedADDP(folder)
    before = {name: value.clone() for name, value in published.model.named_parameters()}
    first = published.train_step(torch.rand(2, 3, 32, 32))
    assert 0 < first < 10
    changed = {name for name, value in published.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in published.model.named_parameters() if value.requires_grad}
    assert {name.partition('.')[0] for name in before} - {name.partition('.')[0] for name in changed} == {
        'vqgan',
        'token_predictor',
    }
    assert all(value.grad is None for value in published.model.parameters())


def test_a_sampling_run_returns_the_images_and_writes_none(folder, capsys):
    published = PublishedADDP(folder)
    images = published.sample(torch.rand(3, 3, 32, 32), num_steps=2)
    assert images.shape == (3, 3, 32, 32)
    assert not published.model.training
    assert capsys.readouterr().out == ''


def test_parts_have_the_names_of_our_own_steps(folder):
    published = PublishedADDP(folder)
    spans, ticks = published.spans(), iter(range(1000))
    with spans.record(lambda: next(ticks)) as parts:
        published.train_step(torch.rand(1, 3, 32, 32))
    assert set(parts) == {
        'other',
        'tokenizer encode',
        'predictor',
        'tokenizer decode',
        'backbone',
        'neck',
        'head and loss',
        'backward',
        'optimizer',
    }


def test_bfloat16_runs_under_autocast(folder):
    published = PublishedADDP(folder, precision='bfloat16')
    seen = []
    published.model.block.register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    published.train_step(torch.rand(1, 3, 32, 32))
    assert seen == [torch.bfloat16]


def test_the_process_stays_as_it_was(folder):
    modules, path, current, cuda = set(sys.modules), list(sys.path), os.getcwd(), Tensor.cuda
    PublishedADDP(folder).train_step(torch.rand(1, 3, 32, 32))
    PublishedADDP(folder)  # a second time, from the files again
    new = {name.partition('.')[0] for name in set(sys.modules) - modules}
    assert not new & {'modeling', 'engine_generate', 'image_synthesis', 'util', 'omegaconf', 'pytorch_lightning'}
    assert (sys.path, os.getcwd(), Tensor.cuda) == (path, current, cuda)


def test_a_folder_without_the_code_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'--published .* has no engine_generate.py: give a folder'):
        PublishedADDP(tmp_path)


def test_a_package_that_is_missing_is_named(folder):
    (folder / 'modeling/utils.py').write_text('import package_that_nobody_has\n')
    with pytest.raises(ConfigError, match="No module named 'package_that_nobody_has'. Install what its code imports"):
        PublishedADDP(folder)
