# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/analysis_tools/search_schedule.py: results, exact continuation, mistakes."""

import contextlib
import io
import json
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_addp import build_model, write_config
from helpers.tiny_extractor import write_weights
from PIL import Image

from addp_mm import evaluation
from addp_mm.apis import generate, load_model
from addp_mm.folder_lock import lock_folder
from addp_mm.generation import SamplingSchedule
from addp_mm.generation.figures import to_uint8
from addp_mm.generation.schedule_search import command_options, suggest_schedule

optuna = pytest.importorskip('optuna')

ROOT = Path(__file__).parents[2]
GENERATE = runpy.run_path(str(ROOT / 'tools/generate.py'))
main = runpy.run_path(str(ROOT / 'tools/analysis_tools/search_schedule.py'))['main']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Config, checkpoint, reference, and the config of an extractor."""
    folder = tmp_path_factory.mktemp('search')
    torch.save(build_model().state_dict(), folder / 'addp.pth')
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), np.uint8)):
        (folder / 'reference').mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f'reference/{index}.png')
    extractor = folder / 'extractor.py'
    extractor.write_text(f'extractor = {write_weights(folder / "vit.pth")!r}')
    return dict(
        model=[str(write_config(folder)), str(folder / 'addp.pth')],
        reference=str(folder / 'reference'),
        extractor=str(extractor),
    )


def search(files, out, trials=3, reference=None, *options):
    main(
        [
            *files['model'],
            reference or files['reference'],
            f'--extractor={files["extractor"]}',
            f'--out={out}',
            f'--trials={trials}',
            *('--steps', '3', '--num-images', '10', '--batch-size', '4', '--device', 'cpu'),
            *options,
        ]
    )
    return json.loads((out / 'trials.json').read_text())


@pytest.fixture(scope='module')
def done(files, tmp_path_factory):
    """Folder and results of a finished search, and what it printed."""
    out, printed = tmp_path_factory.mktemp('done') / 'out', io.StringIO()
    with contextlib.redirect_stdout(printed):
        results = search(files, out, 2)
    return out, results, printed.getvalue()


def test_the_first_trial_is_the_published_schedule_and_the_best_one_is_printed(files, done):
    out, results, printed = done
    published, _ = results['trials']
    assert published['options'] == '--steps 3'
    images = to_uint8(generate(load_model(*files['model']), 10, seed=0, num_steps=3).images)
    extractor = evaluation.build_extractor(files['extractor'])
    own = evaluation.FeatureStatistics(extractor.name, extractor.fingerprint)
    own.update(extractor(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)))
    reference = evaluation.folder_statistics(files['reference'], extractor)
    assert published['distance'] == pytest.approx(evaluation.frechet_distance(own, reference), rel=1e-4)

    best = min(results['trials'], key=lambda trial: trial['distance'])
    assert results['best'] == best
    (command,) = [line for line in printed.splitlines() if line.startswith('addp generate')]
    assert command == f'addp generate {shlex.join(files["model"])} --out FOLDER {best["options"]}'
    table = (out / 'trials.md').read_text().splitlines()
    assert table[6] == f'| {best["trial"]} | {best["distance"]:.4f} | `{best["options"]}` |'
    assert len(table) == 8
    assert Image.open(out / 'trials.png').size == (960, 600)


@pytest.mark.slow
def test_an_interrupted_search_continues_exactly(files, tmp_path, monkeypatch, capsys):
    """Also after the ten random trials with which Optuna starts."""
    quick = (None, '--num-images', '4', '--steps', '2')
    whole = search(files, tmp_path / 'whole', 11, *quick)
    plain, calls = evaluation.frechet_distance, []

    def interrupted(*statistics):
        calls.append(0)
        if len(calls) in (1, 11):
            raise KeyboardInterrupt
        return plain(*statistics)

    monkeypatch.setattr(evaluation, 'frechet_distance', interrupted)
    for _ in range(2):
        with pytest.raises(SystemExit, match='130'):
            search(files, tmp_path / 'parts', 11, *quick)
        assert 'interrupted: finished trials are kept' in capsys.readouterr().err
    assert search(files, tmp_path / 'parts', 11, *quick) == whole
    assert len({trial['options'] for trial in whole['trials']}) == 11
    assert len(calls) == 11 + 2


def test_printed_options_give_the_schedule_of_the_trial():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    schedules = [suggest_schedule(study.ask(), 8, 256) for _ in range(60)]
    for schedule in schedules:
        arguments = ['config', 'checkpoint', '--out', 'x', *command_options(schedule)]
        assert GENERATE['schedule_of'](GENERATE['parse_args'](arguments)) == schedule
    assert {schedule.order for schedule in schedules} == {'confidence', 'halton'}
    assert {str(schedule.ratio).partition(':')[0] for schedule in schedules} == {'cosine', 'linear', 'power'}
    assert {schedule.top_k is None for schedule in schedules} == {True, False}
    assert command_options(SamplingSchedule()) == ['--steps', '20']


def test_statistics_in_a_file_are_a_reference(files, done, tmp_path):
    extractor = evaluation.build_extractor(files['extractor'])
    evaluation.folder_statistics(files['reference'], extractor).save(tmp_path / 'own.npz')
    (found,) = search(files, tmp_path / 'file', 1, str(tmp_path / 'own.npz'))['trials']
    assert found['distance'] == pytest.approx(done[1]['trials'][0]['distance'], rel=1e-6)
    other = evaluation.FeatureStatistics('other', 'f' * 64)
    other.update(torch.rand(9, 8))
    other.save(tmp_path / 'other.npz')
    with pytest.raises(SystemExit, match='other.npz: statistics of the images and of the file cannot be compared'):
        search(files, tmp_path / 'other', 1, str(tmp_path / 'other.npz'))
    assert not (tmp_path / 'other').exists()


def test_trials_of_other_settings_do_not_mix(files, done):
    out, before, _ = done
    with pytest.raises(SystemExit, match=r'search with other settings \(seed 0 -> 1\): choose another --out'):
        search(files, out, 3, None, '--seed', '1')
    # and a finished search has nothing left to do
    assert search(files, out, 2) == before


def test_mistakes_are_named(files, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match='num_steps must be at most 16, .* got 17'):
        search(files, tmp_path / 'out', 1, None, '--steps', '17')
    with pytest.raises(SystemExit, match='none.npz does not exist'):
        search(files, tmp_path / 'out', 1, 'none.npz')
    (tmp_path / 'one').mkdir()
    Image.new('RGB', (16, 16)).save(tmp_path / 'one/0.png')
    with pytest.raises(
        SystemExit, match='the Fréchet distance cannot be computed: it needs at least 2 images .*one: 1'
    ):
        search(files, tmp_path / 'out', 1, str(tmp_path / 'one'))
    assert not (tmp_path / 'out').exists()
    (tmp_path / 'damaged').mkdir()
    (tmp_path / 'damaged/search.db').write_text('no database' * 100)
    with pytest.raises(SystemExit, match='search.db is not a search that can be continued .*: choose another --out'):
        search(files, tmp_path / 'damaged', 1)
    with (
        contextlib.closing(lock_folder(tmp_path / 'busy')),
        pytest.raises(SystemExit, match='busy is in use by another run'),
    ):
        search(files, tmp_path / 'busy', 1)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(SystemExit, match=r"needs Optuna, .*\n    pip install 'addp_mm\[search\]'"):
        search(files, tmp_path / 'out', 1)
