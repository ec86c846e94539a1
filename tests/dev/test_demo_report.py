# Copyright (c) addp_mm contributors. Apache-2.0.
"""The report of the demo, and its commands."""

import re
import shutil
from pathlib import Path

import demo
import pytest
from demo_report.demo_page import NEXT
from demo_report.finetunings import CONFIGS, load_config
from helpers.demo_files import ROOT, write_outputs
from helpers.html_page import ParsedPage

from addp_mm.__main__ import OWN, TOOLS
from addp_mm.benchmark.step_runner import Done
from addp_mm.datasets.fashion.fashion_mnist import CLASSES
from addp_mm.report.logs import LogError

DONE = Done(61.0, 900.0, skipped=False)


@pytest.fixture
def finished(tmp_path):
    """A demo in ``tmp_path`` whose steps have written their files."""
    write_outputs(tmp_path)
    return demo.plan(tmp_path, short=False)


def results(planned, but=()) -> dict[str, Done]:
    """Results of all steps, except some."""
    return {step.name: DONE for step in planned.steps if step.name not in but}


def test_the_report_shows_every_result_with_its_commands(finished, tmp_path):
    size = finished.write(results(finished))
    html = (tmp_path / 'report.html').read_text()
    assert size == len(html.encode()) < 8_000_000
    parsed = ParsedPage(html)
    assert parsed.external() == []
    figures = re.findall(r'<figure>(.*?)</figure>', html, re.DOTALL)
    assert len(figures) >= 9
    for figure in figures:
        assert re.search(r'<figcaption>.+</figcaption>\s*<details>.*<pre>(python|addp) \S', figure, re.DOTALL)
    for number in ('31.2', '21.2', '28.7', '18.7', '+10.0', '40.1', '35.2', '45.3'):
        assert number in parsed.text
    assert 'Seed 0' in parsed.text
    assert '300 iterations, batch 16, 20,000 training scenes' in parsed.text
    for step in finished.steps:
        assert step.shown in parsed.text
    assert 'After 50 iterations' in parsed.text
    assert 'no meaning' not in parsed.text
    assert 'not finished' not in parsed.text
    headings = re.findall(r'<h2>(.*?)</h2>', html)
    assert headings.index('Detection and segmentation') < headings.index('Pre-training') < headings.index('Fine-tuning')


def test_the_columns_of_garments_have_the_names_of_the_classes(finished, tmp_path):
    finished.write(results(finished))
    alts = [image['alt'] for image in ParsedPage((tmp_path / 'report.html').read_text()).attributes('img')]
    assert f'4 scenes; columns: {", ".join(CLASSES)}' in alts


def test_the_report_is_written_once_before_the_trainings(finished, tmp_path, capsys):
    report, done = tmp_path / 'report.html', {}
    trainings = [step.name for part in finished.trainings for step in part.steps]
    for step in [step for step in finished.steps if step.name not in trainings]:
        assert not report.exists()
        done[step.name] = DONE
        finished.show_predictions(done)
    text = ParsedPage(report.read_text()).text
    assert 'The trainings are not finished' in text
    assert 'Inpainting' in text
    assert 'Fine-tuning' not in text
    assert f'{report}: open it in a browser' in capsys.readouterr().out
    report.unlink()
    finished.show_predictions({**done, trainings[0]: DONE})
    assert not report.exists()


def test_a_demo_that_was_done_before_has_no_early_report(finished, tmp_path):
    finished.show_predictions(results(finished))
    assert not (tmp_path / 'report.html').exists()


def test_a_part_is_shown_when_all_its_steps_are_done(finished, tmp_path):
    finished.write(results(finished, but=['outpaint']))
    assert 'Inpainting' not in (tmp_path / 'report.html').read_text()


def test_a_short_report_says_that_its_numbers_have_no_meaning(finished, tmp_path):
    short = demo.plan(tmp_path, short=True)
    short.write(results(short, but=['inpaint']))
    html = (tmp_path / 'report.html').read_text()
    assert html.index('have no meaning') < html.index('<figure>')


@pytest.mark.parametrize(
    'path',
    [
        'samples/grid.png',
        'samples/steps.png',
        'garments/images/000012.png',
        'edits/outpaint/figures/000013.png',
        'shipped_det/predictions.segm.json',
        'shipped_det/metrics.json',
        'shipped_seg/labels/000001.png',
        'pretrain/20260101_000000/vis_data/scalars.json',
        'pretrain/20260101_000000/vis_data/vis_image',
        'det_addp/test/metrics.json',
        'det_random/train/20260101_000000/vis_data/scalars.json',
    ],
)
def test_a_missing_output_of_a_step_is_named(finished, tmp_path, path):
    target = tmp_path / path
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    named = path.split('/20260101')[0]
    with pytest.raises(LogError, match=re.escape(str(tmp_path / named))):
        finished.write(results(finished))


def test_boxes_and_masks_of_different_tests_are_refused(finished, tmp_path):
    (tmp_path / 'shipped_det/predictions.bbox.json').write_text('[]')
    with pytest.raises(LogError, match='differ in length'):
        finished.write(results(finished))


@pytest.mark.parametrize('short', [False, True])
def test_every_command_names_tools_configs_and_options_that_exist(short):
    from addp_mm.config.config_file import load_config as checked

    planned = demo.plan(Path('work_dirs/demo'), short)
    assert demo.missing_assets(planned.steps) == []
    for step in planned.steps:
        assert (ROOT / step.command[0]).is_file()
        assert all((ROOT / config).is_file() for config in step.configs)
        if '--cfg-options' in step.command:
            options = list(step.command[step.command.index('--cfg-options') + 1 :])
            checked(str(ROOT / step.command[1]), options)


def test_a_missing_asset_is_named(tmp_path, monkeypatch):
    planned = demo.plan(Path('work_dirs/demo'), short=False)
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    missing = demo.missing_assets(planned.steps)
    assert {'addp_mm/assets/addp_nano-p8.safetensors', 'addp_mm/assets/vq-tokenizer_nano-p8.safetensors'} <= set(
        missing
    )
    assert len(set(missing)) == len(missing)


def test_the_next_steps_name_pages_and_commands_that_exist():
    for _, page, command in NEXT:
        assert (ROOT / page).is_file()
        program, name, *_ = command.split()
        assert program == 'addp'
        assert name in {**TOOLS, **OWN}


def test_random_weights_differ_from_addp_weights_in_nothing_else():
    addp, random = (load_config(CONFIGS[weights]).to_dict() for weights in ('addp', 'random'))
    assert addp['model']['backbone'].pop('init_cfg')['checkpoint'].endswith('addp_nano-p8.safetensors')
    assert random['model']['backbone'].pop('init_cfg') is None
    assert addp == random
