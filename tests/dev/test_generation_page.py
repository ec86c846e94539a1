# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page of generation: a short run, the whole page from made-up results, and its commands."""

import json
import re
import runpy
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import generation_page
import numpy as np
import pytest
from generation_report.cells import Cell, Line, Model, shown
from generation_report.page import share_text, write_page
from generation_report.steps import Steps
from generation_report.study import COSINE, weight_files
from helpers.demo_files import png, write_scalars
from PIL import Image

from addp_mm.report.logs import LogError

ROOT = Path(__file__).parents[2]
SHARE = dict(count=10, total=100, share=0.1, interval=[0.055, 0.174])
QUALITY = dict(
    references={'real validation scenes': dict(empty=dict(SHARE, share=0.002), named=dict(SHARE, share=0.97))},
    classifier=dict(mean_average_precision=0.9, precision=0.88, recall=0.8),
    definition=dict(colour_distance=50.0, empty_share=0.02, named=0.5),
)


def study_in(folder, *options):
    (folder / 'data').mkdir()
    (folder / 'data/fashion_scenes.json').write_text('{"seed": 0}')
    class_weights = folder / 'classes.safetensors'
    class_weights.write_bytes(b'')
    given = ['--work-dir', str(folder / 'work'), '--data-root', str(folder / 'data'), '--num-images', '30']
    args = generation_page.parse_args([*given, '--class-checkpoint', str(class_weights), *options])
    return generation_page.study_of(args)


def distance_of(cell, extractor):
    """A made-up number for each cell."""
    return len(cell.line.title) + cell.steps / 100 + (50 if extractor.startswith('efficient') else 0)


def write_results(study):
    """Write what the commands of a study write."""
    work_dir, searched = study.commands.work_dir, '--steps 8 --schedule power:3.1 --order halton --top-p 0.69'
    trials = [dict(distance=9.5, options='--steps 8'), dict(distance=2.5, options=searched)]
    study.commands.trials.parent.mkdir(parents=True)
    found = dict(settings=dict(num_images=6), best=trials[1], trials=trials)
    study.commands.trials.write_text(json.dumps(found))
    for cell in study.cells():
        for number in range(30 if cell.steps == study.detail_steps else 0):
            png(study.commands.folder(cell) / f'images/{number:06d}.png', (8, 8), number)
        for extractor in study.extractors:
            scores = {f'fid[{extractor}]': distance_of(cell, extractor), 'precision[x]': 0.75, 'recall[x]': 0.25}
            result = dict(
                metrics=scores,
                reference=dict(convention='12 images (convention of ADDP and MAGE)'),
                extractor=dict(fingerprint='0123456789abcdef'),
            )
            study.commands.scores(cell, extractor).parent.mkdir(exist_ok=True)
            study.commands.scores(cell, extractor).write_text(json.dumps(result))
    images = {str(study.commands.folder(cell) / 'images'): dict(empty=SHARE, named=SHARE) for cell in study.detail()}
    study.commands.qualities.write_text(json.dumps(dict(QUALITY, images=images)))
    study.load_file.write_text('4.2')
    (work_dir / 'logs').mkdir()
    for line, steps in study.timed():
        for name, rate in zip(study.rate_names(line, steps), ('8.00img/s', '2.00s/img', '6.00img/s'), strict=True):
            bars = [f'{done}/10 images [00:01, 00:01 left, {at}]' for done, at in ((5, '99.00img/s'), (10, rate))]
            (work_dir / f'logs/{name}.log').write_text('\r'.join(bars))
    (work_dir / 'stamps').mkdir()
    (work_dir / 'stamps/a.json').write_text(json.dumps(dict(seconds=70)))


def rows_of(page, name):
    return [line for line in page.splitlines() if line.startswith(f'| {name} |')]


def test_the_page_has_every_number_and_figure(tmp_path, monkeypatch):
    earlier = ('--earlier', generation_page.CONFIG, 'addp_mm://addp_nano-p8.safetensors')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    study = study_in(tmp_path, *earlier, '--extractors', 'addp-vit-nano-p8', 'efficientnet-lite0')
    write_results(study)
    curve = [
        {f'predictor/cross_entropy@{share}': 5 - step + step * step / 4, 'step': step}
        for share in ('0.50', '0.75', '0.95')
        for step in (1, 2, 3)
    ]
    write_scalars(tmp_path / 'predictor', '20260101_000000', curve)
    (tmp_path / 'predictor/a_predictor.py').write_text('')
    out = tmp_path / 'docs/benchmarks/page.md'
    write_page(study, out, tmp_path / 'predictor')
    page = out.read_text()
    halton = '`--schedule power:3.1 --order halton --top-p 0.69`'
    assert rows_of(page, 'searched')[0] == f'| searched | {halton} | 8.04 | 8.08 | 8.16 | 8.32 |'
    assert rows_of(page, 'published')[0].startswith('| published | none | 9.04 |')
    assert (
        rows_of(page, 'published')[1] == '| published | 9.08 | 0.75 | 0.25 | 59.08 | 10.0% (5.5% to 17.4%) | '
        '10.0% (5.5% to 17.4%) |'
    )
    assert rows_of(page, 'earlier weights')[0].startswith('| earlier weights | 15.08 |')
    assert rows_of(page, 'real validation scenes')[0].startswith('| real validation scenes | – | – | – | – | 0.2% (')
    options = '`--guidance 3 --schedule power:3.1 --order halton --top-p 0.69`'
    assert rows_of(page, 'guidance 3')[0].startswith(f'| guidance 3 | {options} | 10.04 |')
    assert rows_of(page, 'guidance 3')[1] == '| guidance 3 | 10.08 | 0.75 | 0.25 |'
    assert rows_of(page, 'no guidance')[0].startswith('| no guidance | 6 (0.5 to 8) |')
    assert rows_of(page, '50%')[0] == '| 50% | 4.000 (2) | 4.250 (3) |'
    text = ' '.join(page.split())
    for words in (
        'not an FID',
        'the validation scenes: 12 images (convention of ADDP and MAGE).',
        '`0123456789ab`',
        'OMP_NUM_THREADS=1 addp generate',
        'Not measured on a GPU.',
        'load of the machine was 4.2',
        'addp train a_predictor',
        '2.50, and 9.50 for the published schedule',
        '1:10 minutes',
    ):
        assert words in text
    assert str(tmp_path) not in page.replace(study.garments.checkpoint, '')
    figures = re.findall(r'!\[.+\]\((.+)\)', page)
    assert len(figures) == 4
    assert all((out.parent / figure).is_file() for figure in figures)
    with Image.open(tmp_path / 'docs/images/generation_classes.webp') as grid:
        assert grid.size == (74 + 2 + 9 * 10, 16 + 2 + 10 * 10)  # 3 scales of 3 images, 10 garments
    texts = ''.join(page.split('```')[::2]).splitlines()
    assert all(len(line) <= 100 or line[0] in '|!' for line in texts)


def test_parts_that_are_not_measured_are_left_out(tmp_path):
    study = study_in(tmp_path)
    study = replace(study, garments=None, extent=replace(study.extent, trials=0, with_quality=False))
    write_results(study)
    write_page(study, tmp_path / 'docs/benchmarks/page.md', None)
    page = (tmp_path / 'docs/benchmarks/page.md').read_text()
    for words in ('searched', 'guidance 1', 'all but empty', 'cross entropy', 'earlier weights'):
        assert words not in page
    assert rows_of(page, 'Halton')


def test_a_missing_rate_and_a_missing_score_are_named(tmp_path):
    study = study_in(tmp_path)
    write_results(study)
    line, steps = study.timed()[0]
    log = study.commands.work_dir / 'logs' / f'{study.rate_names(line, steps)[1]}.log'
    log.write_text('killed')
    with pytest.raises(LogError, match=re.escape(f'{log} has no rate')):
        study.rates(line, steps)
    with pytest.raises(LogError, match='has no kid'):
        study.score(study.cells()[0], 'kid')


def test_a_sample_of_a_class_is_in_its_row(tmp_path):
    from generation_report.pictures import write_class_samples

    study = study_in(tmp_path)
    for cell in study.cells():
        for number in range(30):  # image i has class i % 10, and a grey of its class
            path = study.commands.folder(cell) / f'images/{number:06d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 20 * (number % 10), np.uint8)).save(path)
    write_class_samples(study, [str(index) for index in range(10)], tmp_path / 'grid.webp')
    with Image.open(tmp_path / 'grid.webp') as grid:
        pixels = np.asarray(grid.convert('L'), dtype=int)
    for label in range(10):
        centres = pixels[16 + 2 + 10 * label + 4, 74 + 2 + 4 :: 10]
        assert len(centres) == 9
        assert np.abs(centres - 20 * label).max() < 12


def test_every_command_is_one_that_its_tool_takes(tmp_path):
    study = study_in(tmp_path)
    write_results(study)  # of the search
    parsers = {
        name: runpy.run_path(str(ROOT / 'tools' / name))['parse_args']
        for name in ('generate.py', 'evaluate_images.py', 'analysis_tools/search_schedule.py')
    }
    for name, of in (('generate', 'generate.py'), ('evaluate-images', 'evaluate_images.py')):
        parsers[name] = parsers.pop(of)
    steps = Steps(study, dict.fromkeys(study.extractors, ''))
    quality = [step for step in steps.cells() if step.name == 'quality']
    assert len(quality) == 1
    for step in (*steps.rates(), *steps.search(), *steps.cells()):
        if step not in quality:
            start = 3 if step.command[0] == '-m' else 1
            args = parsers[step.command[start - 1].removeprefix('tools/')](list(step.command[start:]))
            assert getattr(args, 'classes', None) in (None, ['all'])
    assert len(steps.cells()) == 2 * 4 * (5 + 3) + 1


def test_the_shares_are_those_that_the_script_of_scene_quality_writes(tmp_path):
    scene_quality = pytest.importorskip('scene_quality')
    study = study_in(tmp_path)
    write_results(study)
    args = scene_quality.parse_args(list(study.commands.quality(study.detail())[1:]))
    assert args.images == [str(study.commands.folder(cell) / 'images') for cell in study.detail()]
    assert (args.data_root, args.out) == (study.commands.data_root, study.commands.qualities)
    shares = scene_quality.SceneQuality(scene_quality.Share(10, 100), scene_quality.Share(50, 100), {}).as_dict()
    assert share_text(shares['empty']) == '10.0% (5.5% to 17.4%)'
    assert shares['named'].keys() == SHARE.keys()
    known = scene_quality.ClassifierQuality(0.9, {}, 0.88, 0.8)
    assert QUALITY['classifier'].items() <= asdict(known).items()


def test_all_weights_of_a_model_decide_whether_its_images_are_generated_again():
    model = Model('scenes', generation_page.CONFIG, 'addp_mm://addp_nano-p8.safetensors', 'scenes/val')
    names = [path.name for path in weight_files(model)]
    parts = ('addp', 'vq-tokenizer', 'token-predictor')
    assert names == [f'{part}_nano-p8.safetensors' for part in parts]


def test_a_command_is_shown_as_you_type_it(tmp_path):
    commands = replace(study_in(tmp_path).commands, work_dir=Path('w'), data_root=Path('d'))
    cell = Cell(Line('cosine', Model('scenes', 'CONFIG', 'WEIGHTS', 'scenes/val'), COSINE), 8)
    text = shown(commands.generate(cell))
    assert max(map(len, text.splitlines())) <= 102
    assert shlex.split(text.replace('\\\n', '')) == ['addp', *commands.generate(cell)[2:]]
    assert text.startswith('addp generate CONFIG WEIGHTS --out w/images/scenes-cosine-8 --num-images 30')


@pytest.mark.parametrize(
    'options, words',
    [
        (['--data-root', 'nowhere'], '--data-root nowhere/fashion_scenes.json does not exist'),
        (['--class-checkpoint', 'none.pth'], 'checkpoint none.pth does not exist'),
        (['--checkpoint', 'addp_mm://none.pth'], "ships no 'none.pth'"),
        (['--predictor-work-dir', 'nowhere'], 'nowhere has no'),
    ],
)
def test_wrong_paths_are_named_before_anything_is_measured(tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(generation_page, 'measure', lambda *_: pytest.fail('measured'))
    (tmp_path / 'fashion_scenes.json').write_text('{}')
    out = str(tmp_path / 'page.md')
    with pytest.raises(SystemExit, match=re.escape(words)):
        generation_page.main(['--data-root', str(tmp_path), '--work-dir', str(tmp_path), '--out', out, *options])


@pytest.mark.slow
def test_a_short_run_measures_each_cell_once(tmp_path, written_set, monkeypatch, capsys):
    """The real commands with the shipped weights."""
    monkeypatch.setenv('HOME', str(tmp_path))  # of the cached features
    monkeypatch.setattr(generation_page, 'CLASS_WEIGHTS', 'none')
    arguments = ['--short', '--work-dir', str(tmp_path / 'work'), '--data-root', str(written_set)]
    generation_page.main(arguments)
    page = (tmp_path / 'work/page/benchmarks/generation.md').read_text()
    assert re.search(r'^\| cosine \| `.*` \| \d+\.\d\d \|$', page, re.MULTILINE)
    assert re.search(r'^\| no guidance \| [\d.]+ \(', page, re.MULTILINE)
    capsys.readouterr()
    generation_page.main(arguments)
    printed = capsys.readouterr().out
    assert printed.count('already done') == printed.count('$ python') == 3
