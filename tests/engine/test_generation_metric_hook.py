# Copyright (c) addp_mm contributors. Apache-2.0.
"""Validation of a pre-training by the images that it generates."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import two_ranks_generation
from helpers.image_sets import pixels, write_folder
from helpers.jobs import in_two, records
from helpers.tiny_addp import MODEL, build_model
from helpers.tiny_extractor import write_weights
from helpers.tiny_pretraining import build_runner
from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import DefaultScope

from addp_mm.checks.before_training import check_first_validation_image
from addp_mm.checks.preflight_error import PreflightError
from addp_mm.checks.save_best import check_save_best
from addp_mm.config.shipped import config_path
from addp_mm.engine.hooks import GenerationMetricHook
from addp_mm.engine.loops import GenerationValLoop
from addp_mm.engine.loops.generation_val_loop import ImageNumbers
from addp_mm.errors import ConfigError
from addp_mm.evaluation import GenerationMetric
from addp_mm.generation import AlternatingSampler, Guidance, SamplingSchedule, image_generator, image_generators
from addp_mm.registry import HOOKS, MODELS

KEY = 'generation/fid[tiny-vit]'
SAMPLER = dict(num_steps=3, temperature=2.0)


@pytest.fixture
def options(tmp_path):
    return dict(
        type='addp_mm.GenerationMetricHook',
        interval=2,
        num_images=10,
        reference=str(write_folder(tmp_path / 'reference', pixels(12, 16))),
        extractor=write_weights(tmp_path / 'tiny.pth'),
        sampler=SAMPLER,
        batch_size=4,
        seed=3,
        cache_dir=str(tmp_path / 'cache'),
    )


def scalars(work_dir):
    file = next(Path(work_dir).rglob('vis_data/scalars.json'))
    return [json.loads(line) for line in file.read_text().splitlines()]


def measure(model, options):
    """The distance of the images that a sampler generates from the seed at once."""
    model.eval()
    sampler = AlternatingSampler(model, model.latent_size, SamplingSchedule(**SAMPLER))
    images = sampler.complete(
        *sampler.blank(10), image_generators(10, torch.Generator().manual_seed(options['seed']))
    ).images
    metric = GenerationMetric(
        reference=options['reference'], extractor=options['extractor'], cache_dir=options['cache_dir']
    )
    metric.process({}, [dict(image=image) for image in images])
    return metric.evaluate(10)[KEY]


def test_the_distance_is_logged_and_chooses_the_best_checkpoint(tmp_path, options):
    plain = [dict(type='addp_mm.GenerativePretrainHook', preview_interval=0)]
    best = dict(save_best=KEY, rule='less')
    runner = build_runner(tmp_path / 'run', custom_hooks=[*plain, options], checkpoint=best)
    # as configs/_base_/default_runtime.py
    next(hook for hook in runner.hooks if isinstance(hook, LoggerHook)).log_metric_by_epoch = False
    runner.train()
    found = {line['step']: line[KEY] for line in scalars(tmp_path / 'run') if KEY in line}
    assert list(found) == [2, 4, 6]
    assert len(set(found.values())) == 3
    # with the weights of that iteration, and whatever the batch size
    for step, value in found.items():
        model = build_model()
        model.load_state_dict(torch.load(tmp_path / f'run/iter_{step}.pth', weights_only=False)['state_dict'])
        assert measure(model, options) == pytest.approx(value, rel=1e-3)
    smallest = min(found, key=found.get)
    assert [path.name for path in (tmp_path / 'run').glob('best_*')] == [
        f'best_generation_fid[tiny-vit]_iter_{smallest}.pth'
    ]
    # the training is that of a run without the hook
    untouched = build_runner(tmp_path / 'without', custom_hooks=plain)
    untouched.train()
    for name, value in untouched.model.state_dict().items():
        assert torch.equal(value, runner.model.state_dict()[name]), name


def test_a_training_by_epochs_validates_after_epochs(tmp_path, options):
    runner = build_runner(tmp_path / 'run', max_iters=3, by_epoch=True, custom_hooks=[options])  # interval=2
    runner.train()
    assert [line['step'] for line in scalars(tmp_path / 'run') if KEY in line] == [2, 3]


def test_averaged_weights_generate(tmp_path, options):
    ema = dict(type='EMAHook', momentum=0.5)
    hooks = [dict(type='addp_mm.GenerativePretrainHook', preview_interval=0), ema, dict(options, interval=6)]
    runner = build_runner(tmp_path / 'run', custom_hooks=hooks)
    runner.train()
    (value,) = [line[KEY] for line in scalars(tmp_path / 'run') if KEY in line]
    averaged = build_model()
    averaged.load_state_dict(torch.load(tmp_path / 'run/iter_6.pth', weights_only=False)['state_dict'])
    assert measure(averaged, options) == pytest.approx(value, rel=1e-3)
    assert measure(runner.model, options) != pytest.approx(value, rel=1e-3)


class Recorder(Hook):
    """Keeps the validation that the run has when its training starts."""

    def before_train(self, runner):
        self.loop = runner.val_loop
        check_first_validation_image(runner)
        check_save_best(runner)


def test_the_checks_before_training_know_this_validation(tmp_path, options):
    recorder = Recorder()
    runner = build_runner(
        tmp_path / 'run',
        max_iters=1,
        custom_hooks=[options],
        extra_hooks=[recorder],
        checkpoint=dict(save_best=KEY, rule='less'),
    )
    runner.train()
    assert isinstance(recorder.loop, GenerationValLoop)
    assert recorder.loop.dataloader.dataset.num_images == 10
    wrong = build_runner(
        tmp_path / 'wrong',
        max_iters=1,
        custom_hooks=[options],
        extra_hooks=[Recorder()],
        checkpoint=dict(save_best='generation/fid', rule='less'),
    )
    with pytest.raises(PreflightError, match=r'is not a metric of .*called generation/fid\[tiny-vit\]'):
        wrong.train()


def test_addp_check_does_not_say_that_save_best_has_no_effect(tmp_path, options):
    runner = build_runner(tmp_path / 'run', custom_hooks=[options], checkpoint=dict(save_best=KEY, rule='less'))
    said = []
    runner.logger.warning = said.append
    check_save_best(runner)
    assert said == []


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(interval=0), 'interval, num_images and batch_size must be at least 1; got 0, 10 and 4'),
        (dict(scores=['fid', 'prc', 'is'], num_images=3), 'num_images=3 is too few: is at least 10, prc at least 4'),
        (dict(scores=['fud']), "'fud' is unknown; did you mean fid"),
        (dict(reference=None), 'needs a reference'),
        (dict(reference='none'), 'reference=none does not exist'),
    ],
)
def test_wrong_options_are_refused(options, changes, words):
    with pytest.raises(ConfigError, match=words):
        HOOKS.build({**options, **changes})


def test_wrong_options_of_the_sampler_are_refused_before_training(tmp_path, options):
    for changes, words in (
        (dict(sampler=dict(num_steps=0)), 'num_steps must be a whole number'),
        (dict(sampler=dict(stepz=3)), 'stepz'),
        (dict(guidance=dict(scale=-1.0)), 'scale of the guidance must'),
        (dict(guidance=dict(weight=1.0)), 'weight'),
        (dict(guidance=dict(scale=1.0)), 'needs a model that was trained with classes'),
    ):
        runner = build_runner(tmp_path / 'run', custom_hooks=[{**options, **changes}])
        with pytest.raises(ConfigError, match=f'sampler or guidance of the generated images: .*{words}'):
            runner.train()


def test_a_second_validation_is_refused(tmp_path, options):
    runner = build_runner(tmp_path / 'run', custom_hooks=[options])
    runner._val_loop = object.__new__(GenerationValLoop)
    with pytest.raises(ConfigError, match='cannot add a second validation'):
        runner.train()


def test_one_line_adds_it_to_a_shipped_config(tmp_path):
    base = config_path('addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px')
    cfg = Config.fromfile(base)
    hook = HOOKS.build(
        dict(type='addp_mm.GenerationMetricHook', interval=500, reference=str(tmp_path), extractor='addp-vit-nano-p8')
    )
    assert isinstance(hook, GenerationMetricHook)
    assert cfg.val_dataloader is None  # as the hook needs it


def test_a_conditional_model_generates_its_classes_in_turn(tmp_path, options):
    space = dict(codebook_size=16, num_class_slots=4, fake_class_slot=1, num_classes=3)
    parts = {name: dict(MODEL[name], token_space=space) for name in ('predictor', 'neck', 'head')}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(MODEL, **parts)).eval()
    for guidance in (None, dict(scale=3.0)):
        hook = HOOKS.build(dict(options, guidance=guidance))
        runner = build_runner(tmp_path / 'run', model=model, custom_hooks=[hook])
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        hook.before_train(runner)
        images = runner.val_loop.generate([2, 3])
        sampler = AlternatingSampler(
            model, model.latent_size, SamplingSchedule(**SAMPLER), guidance and Guidance(**guidance)
        )
        streams = [image_generator(3, number) for number in (2, 3)]
        assert torch.equal(images, sampler.complete(*sampler.blank(2), streams, [2, 0]).images)


def test_two_processes_measure_the_same_as_one(tmp_path, options):
    in_two(tmp_path, 'ranks', two_ranks_generation.job, options=options)
    found = [records(tmp_path)[f'ranks_{rank}'] for rank in range(2)]
    # nine images: the sampler repeats one, which counts once
    model = build_model().eval()
    sampler = AlternatingSampler(model, model.latent_size, SamplingSchedule(**SAMPLER))
    streams = image_generators(9, torch.Generator().manual_seed(3))
    images = sampler.complete(*sampler.blank(9), streams).images
    metric = GenerationMetric(
        reference=options['reference'], extractor=options['extractor'], cache_dir=options['cache_dir']
    )
    metric.process({}, [dict(image=image) for image in images])
    assert found[0]['metrics'] == found[1]['metrics'] == pytest.approx(metric.evaluate(9), rel=1e-3)
    assert [rank['generated'] for rank in found] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 0]]


def test_numbers_of_images():
    numbers = ImageNumbers(3, dict(classes=('a',)))
    assert [numbers[index] for index in range(len(numbers))] == [0, 1, 2]
    assert numbers.metainfo == dict(classes=('a',))
    assert np.array_equal(ImageNumbers(1).metainfo, {})
