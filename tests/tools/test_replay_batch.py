# Copyright (c) addp_mm contributors. Apache-2.0.
import importlib.util
from pathlib import Path

import pytest
import torch
from helpers.guarded import BadGradient, build
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from PIL import Image

from addp_mm.analysis.replay.figure import batch_figure
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.engine.guards.failed_batch import read_event
from addp_mm.engine.guards.plain_data import PlainDataError, from_plain, to_plain
from addp_mm.engine.hooks import TrainingCollapsedError

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/replay_batch.py'


@pytest.fixture(scope='module')
def replay():
    spec = importlib.util.spec_from_file_location('replay_batch', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main(list(map(str, arguments)))


def event_of(runner) -> Path:
    with pytest.raises(TrainingCollapsedError):
        runner.train()
    (path,) = Path(runner.work_dir, 'failed_batches').iterdir()
    return path


def test_a_bad_image_is_named_and_its_loss_is_repeated(tmp_path, replay, capsys):
    path = event_of(build(tmp_path, {}, bad=9))
    replay(path)
    text = capsys.readouterr().out
    assert 'iteration 3, rank 0: the loss is not finite' in text
    assert 'batch: 4 samples; inputs with NaN or Inf: images/9.png' in text
    assert 'weights: all are finite' in text
    lines = {line.split('  ')[0]: line.split() for line in text.splitlines()}
    assert lines['loss'] == ['loss', 'nan', 'nan']
    assert lines['first non-finite output'][-2:] == ['(BaseDataPreprocessor):', 'nan']
    assert lines['first non-finite gradient'][-2:] == ['(Linear):', 'nan']
    assert lines['images/9.png'][1:3] == ['nan', 'nan']
    assert lines['images/8.png'][-1] == 'none'


def test_the_loss_of_dropout_is_repeated_to_the_last_bit(tmp_path, replay, capsys):
    path = event_of(build(tmp_path, {}, hooks=[BadGradient([4])]))
    logged = read_event(path)['outputs']['loss']
    replay(path)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('loss '))
    assert line.split()[1:] == [f'{logged:.6g}'] * 2


def test_float32_is_shown_beside_float16(tmp_path, replay, capsys):
    runner = build(tmp_path, {}, wrapper=dict(type='AmpOptimWrapper', dtype='float16'), bad=None)
    torch.nn.init.constant_(runner.model.head.weight, 60000.0)
    torch.nn.init.constant_(runner.model.head.bias, 60000.0)
    path = event_of(runner)
    replay(path)
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if 'in the training' in line)
    assert header.split()[-2:] == ['float16', 'float32']
    (bad,) = [line for line in lines if line.startswith('first non-finite output')]
    assert 'head (Linear): inf' in bad
    assert bad.endswith('none')


def test_an_event_without_weights_or_config_says_what_to_give(tmp_path, replay, capsys):
    runner = build(tmp_path, dict(max_saved=0), bad=9)
    path = event_of(runner)
    for arguments, words in (
        ([path], 'saved without weights: give a checkpoint of the run with --checkpoint'),
        ([tmp_path / 'iter_2.pth'], 'is not a failed batch: give a file of WORK_DIR/failed_batches'),
        ([tmp_path / 'none.pth'], 'does not exist'),
    ):
        with pytest.raises(SystemExit, match=words):
            replay(*arguments)
    config = tmp_path / 'own.py'
    Config({key: runner.cfg[key] for key in ('model', 'optim_wrapper', 'default_scope')}).dump(config)
    replay(path, '--checkpoint', tmp_path / 'iter_2.pth', '--config', config, '--out', tmp_path / 'batch.png')
    assert 'the batch has no images to draw' in capsys.readouterr().out


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(custom_imports=dict(imports=['antigravity'])), r'imports .*antigravity.*give --config'),
        (dict(model=dict(type='mmengine.utils.path.osp.os.system', command='true')), 'by its path: give --config'),
        (dict(model=None), 'no config of a model'),
    ],
)
def test_a_config_in_the_file_runs_no_code(tmp_path, replay, change, words):
    path = event_of(build(tmp_path, {}, bad=9))
    stored = torch.load(path, weights_only=False)
    stored['config'].update(change)
    torch.save(stored, path)
    with pytest.raises(SystemExit, match=words):
        replay(path)


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('precision', None, 'missing or of another kind: precision'),
        ('precision', {}, 'missing or of another kind: precision'),
        ('config', [1], 'missing or of another kind: config'),
        ('weights', 'beside.pth', r'beside\.pth: weights is not a state dict'),
        ('weights', None, 'missing or of another kind: weights'),
    ],
)
def test_a_malformed_event_is_one_line(tmp_path, name, value, words):
    event = dict(
        batch=torch.zeros(1), config={}, precision=dict(dtype=None, loss_scale=None), iteration=1, rank=0, seed=None,
        names=['a'], outputs={}, gradients=[], kind='loss', reason='', weights={}, format='addp_mm failed batch 1',
    )  # fmt: skip
    torch.save(event, tmp_path / 'event.pth')
    assert read_event(tmp_path / 'event.pth')['names'] == ['a']
    torch.save(dict(weights=3), tmp_path / 'beside.pth')
    event[name] = value
    if value is None:
        del event[name]
    torch.save(event, tmp_path / 'event.pth')
    with pytest.raises(CheckpointError, match=words):
        read_event(tmp_path / 'event.pth')


def test_the_images_are_drawn_with_their_names(tmp_path):
    images = torch.randint(256, (3, 3, 8, 10), dtype=torch.uint8)
    figure = batch_figure(list(images), ['a.png', 'b.png', 'c.png'], marked=[1])
    plain = batch_figure(images, ['a.png', 'b.png', 'c.png'])
    assert figure.size == plain.size
    assert figure.tobytes() != plain.tobytes()
    assert isinstance(figure, Image.Image)
    assert batch_figure(torch.zeros(2, 16, dtype=torch.long), ['', '']) is None


def test_samples_of_a_detector_and_a_segmentor_come_back(tmp_path):
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks
    from mmseg.structures import SegDataSample

    found = DetDataSample(metainfo=dict(img_path='a.jpg', img_shape=(8, 9), scale_factor=(0.5, 0.5)))
    found.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[0.0, 1.0, 2.0, 3.0]])),
        labels=torch.tensor([3]),
        masks=BitmapMasks(torch.ones(1, 8, 9).byte().numpy(), 8, 9),
    )
    labels = SegDataSample(gt_sem_seg=PixelData(data=torch.arange(6).view(1, 2, 3)), metainfo=dict(img_path='b.png'))
    torch.save(to_plain(dict(data_samples=[found, labels], lambdas=len)), tmp_path / 'plain.pth')
    one, two = from_plain(torch.load(tmp_path / 'plain.pth', weights_only=False))['data_samples']
    assert type(one) is DetDataSample
    assert one.metainfo == found.metainfo
    assert type(one.gt_instances.bboxes) is HorizontalBoxes
    assert one.gt_instances.bboxes.tensor.tolist() == [[0, 1, 2, 3]]
    assert one.gt_instances.labels.tolist() == [3]
    assert one.gt_instances.masks.masks.shape == (1, 8, 9)
    assert two.gt_sem_seg.data.shape == (1, 2, 3)
    with pytest.raises(PlainDataError, match=r'os\.system'):
        from_plain({'class of the mm packages': 'os.system', 'tensor': torch.ones(1)})
