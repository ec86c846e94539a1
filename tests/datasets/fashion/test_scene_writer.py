# Copyright (c) addp_mm contributors. Apache-2.0.
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.scene_fixtures import few_garments
from PIL import Image
from pycocotools.coco import COCO

from addp_mm.datasets.fashion.fashion_mnist import CLASSES, load_garments
from addp_mm.datasets.fashion.scene_writer import SceneSetSpec, encode_rle, write_fashion_scenes

ROOT = Path(__file__).resolve().parents[3]
CONVERTER = ROOT / 'tools/dataset_converters/fashion_scenes.py'


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_number_of_workers_does_not_change_a_byte(written_set, tmp_path, spec):
    write_fashion_scenes(tmp_path / 'again', spec, num_workers=2)
    assert contents(tmp_path / 'again') == contents(written_set)


def test_more_scenes_begin_with_the_same_ones(written_set, tmp_path, spec):
    write_fashion_scenes(tmp_path / 'more', dataclasses.replace(spec, train=70))
    first, more = contents(written_set), contents(tmp_path / 'more')
    for name, content in first.items():
        if name.startswith(('scenes', 'labels', 'objects')):
            assert more[name] == content


def test_another_seed_gives_other_images(written_set, tmp_path, spec):
    write_fashion_scenes(tmp_path / 'other', dataclasses.replace(spec, seed=4))
    first, other = contents(written_set), contents(tmp_path / 'other')
    assert first.keys() == other.keys()
    assert not any(first[name] == other[name] for name in first if name.startswith('scenes'))


@pytest.mark.parametrize('split, count', [('train', 12), ('val', 6)])
def test_annotations_equal_label_maps_and_boxes(written_set, split, count):
    coco = COCO(written_set / f'annotations/instances_{split}.json')
    assert len(coco.imgs) == count == len(list((written_set / 'scenes' / split).iterdir()))
    assert {category['id']: category['name'] for category in coco.cats.values()} == dict(enumerate(CLASSES, start=1))
    for image in coco.imgs.values():
        label_map = np.asarray(Image.open(written_set / 'labels' / split / image['file_name']))
        drawn = np.ones((64, 64), np.uint8)
        annotations = coco.imgToAnns[image['id']]
        assert 1 <= len(annotations) <= 5
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert (drawn[mask] == 1).all()
            drawn[mask] = annotation['category_id'] + 1
            rows, columns = np.nonzero(mask)
            assert annotation['bbox'] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation['area'] == mask.sum()
            assert annotation['iscrowd'] == 0
        assert np.array_equal(drawn, label_map)


@pytest.mark.parametrize('split, a_class', [('train', 2), ('val', 1)])
def test_object_folders_are_balanced(written_set, split, a_class):
    folders = sorted((written_set / 'objects' / split).iterdir())
    assert [folder.name for folder in folders] == list(CLASSES)
    assert [len(list(folder.iterdir())) for folder in folders] == [a_class] * 10


def test_marker_contains_the_settings(written_set, spec):
    marker = json.loads((written_set / 'fashion_scenes.json').read_text())
    for key, value in dataclasses.asdict(spec).items():
        assert marker[key] == value
    assert marker['classes'] == list(CLASSES)
    assert marker['garments']['train']['count'] == 6000
    assert marker['garments']['val']['count'] == 1000


@pytest.mark.parametrize(
    'mask, counts',
    [([[0, 0], [0, 0]], [4]), ([[1, 1], [1, 1]], [0, 4]), ([[0, 1], [1, 1]], [1, 3]), ([[1, 0], [0, 1]], [0, 1, 2, 1])],
)
def test_run_lengths_go_down_the_columns_and_begin_with_zeros(mask, counts):
    assert encode_rle(np.array(mask, bool)) == dict(size=[2, 2], counts=counts)


def test_the_same_set_is_unchanged(own_set, spec):
    before = {path: path.stat().st_mtime_ns for path in own_set.rglob('*')}
    assert not write_fashion_scenes(own_set, spec)
    assert {path: path.stat().st_mtime_ns for path in own_set.rglob('*')} == before


def test_an_empty_folder_is_filled(tmp_path, spec):
    (tmp_path / 'out').mkdir()
    assert write_fashion_scenes(tmp_path / 'out', spec)
    assert (tmp_path / 'out' / 'objects').is_dir()


def test_another_set_is_not_overwritten(own_set, spec):
    before = contents(own_set)
    with pytest.raises(FileExistsError, match='seed 3 instead of 4'):
        write_fashion_scenes(own_set, dataclasses.replace(spec, seed=4))
    assert contents(own_set) == before


@pytest.mark.parametrize(
    'name, text, match',
    [('photo.txt', 'mine', 'not FashionScenes'), ('fashion_scenes.json', '{"seed":', 'not FashionScenes')],
)
def test_a_folder_that_holds_something_else_is_refused(tmp_path, name, text, match, spec):
    (tmp_path / name).write_text(text)
    with pytest.raises(FileExistsError, match=match):
        write_fashion_scenes(tmp_path, spec)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_instead_of_the_folder_is_refused(tmp_path, spec):
    (tmp_path / 'out').write_text('mine')
    with pytest.raises(FileExistsError, match='Not a directory'):
        write_fashion_scenes(tmp_path / 'out', spec)


@pytest.mark.parametrize('num_workers', [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path, num_workers, spec, monkeypatch):
    def stop_late(items, text, total, disable):
        yield from items
        if text == 'val scenes':
            raise KeyboardInterrupt

    monkeypatch.setattr('addp_mm.datasets.fashion.scene_writer.tqdm', stop_late)
    with pytest.raises(KeyboardInterrupt):
        write_fashion_scenes(tmp_path / 'out', spec, num_workers=num_workers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_nothing(tmp_path, number):
    command = [sys.executable, str(CONVERTER), str(tmp_path / 'out'), '--train', '1000000', '--num-workers', '2']
    # A shell starts background jobs, including this test, with SIGINT ignored.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list(tmp_path.glob('.out.partial-*/scenes/train/*.png')):
        time.sleep(0.05)
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert 'was not written' in errors
    assert 'Traceback' not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='finds the workers through /proc')
def test_a_killed_worker_is_an_error_and_leaves_nothing(tmp_path):
    command = [sys.executable, str(CONVERTER), str(tmp_path / 'out'), '--train', '1000000', '--num-workers', '2']
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}
    )
    while process.poll() is None and not list(tmp_path.glob('.out.partial-*/scenes/train/*.png')):
        time.sleep(0.05)
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'worker was killed' in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'options, text', [(dict(train=-1), 'train'), (dict(objects_val=5), 'objects_val must be 0 or at least 10')]
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        SceneSetSpec(**options)


def test_old_options_name_the_new_ones(tmp_path, monkeypatch, capsys):
    for old, new in (('--image-size', '--img-size'), ('--workers', '--num-workers')):
        assert run_main(CONVERTER, monkeypatch, tmp_path / 'out', old, 32) == 2
        assert f'{old} was renamed: use {new}' in capsys.readouterr().err


def run_main(path, monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return module.main()
    except SystemExit as error:  # argparse refuses an argument
        return error.code
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_command_writes_then_says_that_nothing_was_done(tmp_path, monkeypatch, capsys):
    arguments = [
        tmp_path / 'out',
        '--img-size',
        32,
        '--train',
        2,
        '--val',
        1,
        '--objects-train',
        10,
        '--objects-val',
        0,
    ]
    assert run_main(CONVERTER, monkeypatch, *arguments) == 0
    assert 'written' in capsys.readouterr().out
    assert run_main(CONVERTER, monkeypatch, *arguments) == 0
    assert 'nothing done' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments, status, text',
    [
        (['--img-size', 8], 1, 'image_size must be at least 32'),
        (['--source', '/nowhere'], 1, '/nowhere'),
        (['--num-workers', 0], 2, 'argument --num-workers: 0 must be at least 1'),
        (['--seed', -1], 2, 'argument --seed: -1 must be'),
    ],
)
def test_command_names_the_fault(tmp_path, monkeypatch, capsys, arguments, status, text):
    assert run_main(CONVERTER, monkeypatch, tmp_path / 'out', *arguments) == status
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_source_folder_is_used(tmp_path, spec, write_source):
    write_source(tmp_path / 'idx', few_garments('train', 3))
    write_source(tmp_path / 'idx', few_garments('val', 3), prefix='t10k')
    write_fashion_scenes(tmp_path / 'out', spec, source=str(tmp_path / 'idx'))
    marker = json.loads((tmp_path / 'out/fashion_scenes.json').read_text())
    assert marker['garments']['train']['count'] == 30


def test_subset_command_packs_the_given_garments(tmp_path, monkeypatch, capsys, write_source):
    garments, val = {split: few_garments(split, 4) for split in ('train', 'val')}, few_garments('val', 2)
    write_source(tmp_path / 'idx', garments['train'])
    write_source(tmp_path / 'idx', garments['val'], prefix='t10k')
    command = ROOT / '.dev/fashion_mnist_subset.py'
    run_main(
        command,
        monkeypatch,
        tmp_path / 'idx',
        '--out',
        tmp_path / 'subset.npz',
        '--train-per-class',
        4,
        '--val-per-class',
        2,
    )
    monkeypatch.setattr('addp_mm.datasets.fashion.fashion_mnist.SUBSET_FILE', tmp_path / 'subset.npz')
    for split, expected in (('train', garments['train']), ('val', val)):
        assert load_garments(split).fingerprint() == expected.fingerprint()
    assert garments['train'].fingerprint() in capsys.readouterr().out
