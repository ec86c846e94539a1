# Copyright (c) addp_mm contributors. Apache-2.0.
"""addp align: whole runs, interrupted and continued, and what is refused before any work."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from helpers.staged_commands import execution
from helpers.tiny_addp import MODEL, build_model, write_config
from helpers.tiny_extractor import write_weights
from PIL import Image

from addp_mm.alignment.pipeline.check_plan import precision_faults
from addp_mm.alignment.pipeline.clock import WorkClock
from addp_mm.alignment.pipeline.plan import Contents, method_names, read_plan
from addp_mm.alignment.pipeline.seed_parts import SeedParts
from addp_mm.errors import ConfigError
from addp_mm.folder_lock import lock_folder
from addp_mm.stages.remove_folder import remove_folder
from addp_mm.stages.stage import StateError

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['addp_mm', 'helpers.red_reward'])
alignment = {alignment!r}
model = {model!r}
train_dataloader = dict(
    batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'),
    sampler=dict(type='addp_mm.ResumableInfiniteSampler'), dataset={dataset!r})
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-2))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4)
default_hooks = dict(
    checkpoint=dict(type='addp_mm.CheckpointHook', by_epoch=False, interval=2),
    logger=dict(type='LoggerHook', interval=1), random_state=dict(type='addp_mm.RandomStateHook'))
log_processor = dict(by_epoch=False)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    """Folder with configs of cDPO, DPO and the likelihood, for a tiny generator."""
    folder = tmp_path_factory.mktemp('configs')
    torch.save(build_model().state_dict(), folder / 'addp.pth')
    rng = np.random.default_rng(0)
    (folder / 'real').mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f'real/{number}.png')
    alignment = dict(
        base=dict(config=str(write_config(folder)), checkpoint=str(folder / 'addp.pth')),
        sampling=dict(num_images=8, batch_size=4, steps=3),
        reward=dict(type='how_red'),
        selection=dict(pairs_per_question=2),
        likelihood=str(folder / 'likelihood_tiny.py'),
        comparison=dict(
            num_images=4,
            measures=dict(filled=dict(type='SceneReward')),
            extractor=write_weights(folder / 'vit.pth'),
            reference=str(folder / 'real'),
        ),
    )
    generator = dict(MODEL, init_cfg=dict(type='addp_mm.Pretrained', checkpoint=str(folder / 'addp.pth')))
    for part in ('backbone', 'neck'):
        generator[part] = dict(generator[part], lora=dict(rank=2))
    tuning = dict(generator=generator, trajectories='')
    chosen = dict(type='addp_mm.ChosenTrajectories', trajectories='', selection='')
    pairs = dict(type='addp_mm.PreferencePairs', trajectories='', selection='')
    for name, model, dataset in (
        ('likelihood', dict(type='addp_mm.LikelihoodTuning'), chosen),
        ('dpo', dict(type='addp_mm.PreferenceTuning'), pairs),
        ('cdpo', dict(type='addp_mm.PreferenceTuning', weighted='rejected'), dict(pairs, scores='')),
    ):
        text = CONFIG.format(alignment=alignment, model=dict(model, **tuning), dataset=dataset)
        (folder / f'{name}_tiny.py').write_text(text)
    return folder


def align(configs, work, execute, *options, methods=('cdpo', 'dpo')):
    import align as tool

    tool.main([*(str(configs / f'{name}_tiny.py') for name in methods), '--work-dir', str(work), *options], execute)


def refused(configs, work, *options, methods=('cdpo', 'dpo')):
    """The message with which the tool ends before its first command."""

    def no_command(*_):
        raise AssertionError('nothing may run')

    with pytest.raises(SystemExit) as ended:
        align(configs, work, no_command, *options, methods=methods)
    return str(ended.value.code)


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_like_an_uninterrupted_one(configs, tmp_path, run_tool):
    def run(name, at_start=lambda command: None, *options):
        align(configs, tmp_path / name, execution(run_tool, at_start), *options, methods=('cdpo',))

    run('whole')
    ran = []

    def until_cdpo(command):
        ran.append(command)
        if 'train.py' in command[1] and '/cdpo/' in command[2]:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit, match='130'):
        run('parts', until_cdpo)
    ran.clear()
    run('parts', ran.append)
    assert '/cdpo/' in ran[0][2]  # what was done is not done again
    whole, parts = (json.loads((tmp_path / name / 'comparison.json').read_text()) for name in ('whole', 'parts'))
    assert whole == parts
    assert list(whole) == ['base', 'positive', 'cdpo']
    for numbers in whole.values():
        assert {*numbers} == {'reward', 'filled', 'better_than_base', 'frechet_distance', 'diversity'}
        assert all(np.isfinite(number['mean']) for number in numbers.values())
    assert whole['base']['better_than_base']['mean'] == 0.5
    assert whole['cdpo']['reward']['mean'] != whole['base']['reward']['mean']
    assert (tmp_path / 'parts/seed_0/contact_sheet.png').is_file()
    figures = {path.name for path in (tmp_path / 'parts/figures').iterdir()}
    charts = {f'comparison_{name}.svg' for name in ('reward', 'filled_difference', 'reward_and_frechet_distance')}
    assert charts | {'images_0.png', 'critical-tokens_0.png', 'trainings_0.svg'} <= figures
    page = (tmp_path / 'parts/report.html').read_text()
    for text in ('Critical tokens', 'Right and wrong', 'Images from the same noise. Rows: base, positive, cdpo'):
        assert text in page
    ran.clear()
    run('parts', ran.append)
    assert ran == []  # nothing is left to do
    _changed_options(configs, tmp_path / 'parts')
    run('parts', ran.append, '--restart-from', 'cdpo', '--cfg-options', 'cdpo.model.loss.beta=0.5')
    done = [next(word for word in command[1:] if 'seed_' in word).partition('seed_0/')[2] for command in ran]
    assert done == ['cdpo/config.py', 'cdpo/run/iter_4.pth', 'cdpo/weights.safetensors']


def _changed_options(configs, work):
    def changed(option):
        return refused(configs, work, '--cfg-options', option, methods=('cdpo',))

    def advice(message):
        return message.rpartition('--restart-from ')[2].split()

    message = changed('cdpo.model.loss.beta=0.5')
    assert re.search(r'seed_0 was started with other options: cdpo: model\.loss None -> ', message)
    assert advice(message) == ['cdpo']
    message = changed('likelihood.train_cfg.max_iters=3')
    assert message.count('train_cfg.max_iters 4 -> 3') == 2
    assert advice(message) == ['positive', 'negative', 'cdpo']
    message = changed('alignment.sampling.steps=2')
    assert re.search(r'samples: sampling --steps 3 -> --steps 2; positive: the images or an earlier stage', message)
    assert advice(message) == ['samples', 'positive', 'negative', 'cdpo']
    assert advice(changed('alignment.selection.right=0.5'))[0] == 'selection'
    assert advice(changed('alignment.contrast=2')) == ['cdpo']
    message = refused(configs, work, '--gpus', '2', methods=('cdpo',))
    assert 'processes 1 -> 2' in message
    elsewhere = work.with_name('elsewhere')
    work.rename(elsewhere)
    assert f'Move {elsewhere} back' in refused(configs, elsewhere, methods=('cdpo',))
    elsewhere.rename(work)


def test_a_removal_that_is_interrupted_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    folder = tmp_path / 'cdpo'
    (folder / 'run').mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr('addp_mm.stages.remove_folder.shutil.rmtree', lambda path: (path / 'run').rmdir() or sys.exit())
        with pytest.raises(SystemExit):
            remove_folder(folder)
    assert not folder.exists()
    folder.mkdir()
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []
    remove_folder(folder)


def test_what_depends_on_the_samples_is_removed_with_them(configs, tmp_path):
    plan = read_plan([str(configs / 'cdpo_tiny.py'), str(configs / 'dpo_tiny.py')])
    run = SeedParts(plan, Contents('abc'), tmp_path / 'seed_0', seed=0, processes=1)
    assert run.parts == ['samples', 'selection', 'positive', 'negative', 'cdpo', 'dpo', 'comparison']
    assert run.depending_on(['negative']) == ['negative', 'cdpo']
    assert run.depending_on(['dpo']) == ['dpo']
    kept = 'comparison/base/images/000000.png'
    for name in ('samples/complete', 'rewards.json', 'comparison/base/measures.json', kept, 'comparison/dpo/complete'):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_text('{}')
    run.restart(['selection'])
    assert run.depending_on(['comparison']) == ['comparison']
    assert run.depending_on(['cdpo', 'comparison']) == ['cdpo', 'comparison']
    left = {str(path.relative_to(run.folder)) for path in run.folder.rglob('*') if path.is_file()}
    assert left == {'samples/complete', kept}  # the base is measured again by the reward of now
    other = run.folder / 'rpo/stage.json'  # a method of another command, on the same samples
    other.parent.mkdir()
    other.write_text('{}')
    run.restart(['dpo'])
    assert other.is_file()
    run.restart(['comparison'])
    assert not (run.folder / 'comparison').exists()
    assert other.is_file()
    run.restart(['samples'])
    assert not [path for path in run.folder.rglob('*') if path.is_file()]


def test_a_damaged_record_is_left_out_of_a_restart(configs, tmp_path):
    run = SeedParts(
        read_plan([str(configs / 'dpo_tiny.py')]), Contents('abc'), tmp_path / 'seed_0', seed=0, processes=1
    )
    run.stages['dpo'].folder.mkdir(parents=True)
    (run.stages['dpo'].folder / 'stage.json').write_text('{"wanted": ')
    with pytest.raises(StateError, match='damaged .*--restart-from dpo'):
        run.changes()
    assert run.changes(['dpo']) == {}


def test_other_weights_of_the_reward_are_a_change_unless_the_record_is_older(configs, tmp_path):
    plan = read_plan([str(configs / 'dpo_tiny.py')])
    run, other = (SeedParts(plan, Contents('abc', weights), tmp_path / 'seed_0', 0, 1) for weights in ('one', 'two'))
    run.folder.mkdir()
    run.selection_file.write_text('{}')
    run.rewards_file.write_text(json.dumps(dict(wanted=run._selection_record(), rewards=[])))
    assert run.changes() == {}
    assert other.changes() == dict(selection=['the weights of the reward'])
    assert other.changes(other.depending_on(['selection'])) == {}
    assert {name: stage.fingerprint for name, stage in run.stages.items()} == {
        name: stage.fingerprint for name, stage in other.stages.items()
    }
    run.rewards_file.write_text(json.dumps(dict(wanted=run._selection_wanted(), rewards=[])))
    assert other.changes() == {}


def test_a_seed_is_locked_and_others_are_not(configs, tmp_path):
    with lock_folder(tmp_path / 'seed_1'):
        assert 'seed_1 is in use by another run' in refused(configs, tmp_path, '--seeds', '0', '1')
        with pytest.raises(SystemExit, match='7'):
            align(configs, tmp_path, lambda *_: sys.exit(7), '--seeds', '0')


def test_each_seed_has_configs_of_its_own(configs, tmp_path):
    plan = read_plan([str(configs / 'cdpo_tiny.py'), str(configs / 'dpo_tiny.py')])
    for seed in (3, 5):
        folder = tmp_path / f'seed_{seed}'
        cfgs = SeedParts(plan, Contents('abc'), folder, seed, processes=1).new
        assert all(cfg.randomness.seed == seed and 'alignment' not in cfg for cfg in cfgs.values())
        datasets = {name: cfg.train_dataloader.dataset for name, cfg in cfgs.items()}
        assert {dataset.trajectories for dataset in datasets.values()} == {str(folder / 'samples/trajectories')}
        assert [datasets[name].which for name in ('positive', 'negative')] == ['right', 'wrong']
        assert datasets['cdpo'].scores == str(folder / 'scores.safetensors')
        assert 'scores' not in datasets['dpo']


def test_nothing_is_fixed_before_it_has_begun(configs, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    for options in ([], ['--cfg-options', 'alignment.sampling.batch_size=2', 'cdpo.model.loss.beta=1.0']):
        with pytest.raises(SystemExit, match='130'):
            align(configs, tmp_path, interrupted, *options)


@pytest.mark.parametrize(
    'options, message',
    [
        (['alignment.sampling.step=3'], r"alignment\.sampling has no 'step'; did you mean steps"),
        (['alignment.sampling.steps=0'], r'alignment\.sampling: argument --steps'),
        (['alignment.sampling.schedule=straight'], r'alignment\.sampling: .*straight'),
        (['alignment.sampling.num_images=1.5'], r'sampling\.num_images must be a whole number of at least 2'),
        (['alignment.sampling=5'], r'alignment\.sampling must be a dict, got 5'),
        (["alignment.sampling.classes=['dress']"], r'alignment\.sampling\.classes: '),
        (['alignment.contrast=-1'], r'alignment\.contrast must be a finite number'),
        (['alignment.selection.share=1'], r'alignment\.selection\.share is unknown; there are by, right'),
        (['alignment.comparison.num_images=1'], r'comparison\.num_images must be a whole number of at least 2'),
        (["alignment.comparison.measures.reward={'type': 'SceneReward'}"], r'the table has a column of that name'),
        (["alignment.comparison.measures.x={'type': 'SceneReward', 'size': 3}"], r'measures\.x: SceneReward: .*size'),
        (["alignment.reward={'type': 'ClassifierReward'}"], r'alignment\.reward: ClassifierReward: .*config'),
        (['alignment.likelihood=dpo_x'], r'ships no config dpo_x'),
        (['likelihood.model.type=addp_mm.PreferenceTuning'], r'likelihood: model\.type .* LikelihoodTuning is needed'),
        (['cdpo.model.los.beta=1'], r'cdpo: .*los'),
        (['dpo.train_dataloader.dataset.type=addp_mm.ChosenTrajectories'], r'dpo: .*needs addp_mm\.PreferencePairs'),
        (["alignment.inpainting={'image': 'x', 'box': '1,2,3'}"], r'inpainting\.box must be four numbers'),
        (["alignment.inpainting={'image': 'x', 'box': '0,0,4,4'}", 'alignment.sampling.amp=1'], r'sampling: .*--amp'),
        (['alignment.selection.by=best'], r"alignment\.selection: by must be 'rank' or 'threshold'"),
        (['alignment.reward.type=how_blue'], r"'how_blue', which is not registered; did you mean how_red"),
        (['alignment.comparison.reference=nowhere'], r'comparison\.reference nowhere does not exist'),
        (['alignment.base.checkpoint=none.pth'], r'error: .*none\.pth'),
        (['model.loss.beta=1'], r'begin with the part, .*parts are alignment, likelihood, cdpo, dpo'),
        (['cdpo.train_cfg.max_iters=None'], r'cdpo: train_cfg must be'),
        (["cdpo.model.generator.backbone.lora.targets=['attention']"], r"cdpo: lora\.targets: no linear .*'attention'"),
        (['cdpo.model.generator.init_cfg=None'], r'cdpo: model\.generator has other weights than .*base\.checkpoint'),
    ],
    ids=lambda value: value[0].partition('=')[0] if isinstance(value, list) else '',
)
def test_mistakes_are_named_before_any_work(configs, tmp_path, options, message):
    assert re.search(message, refused(configs, tmp_path / 'work', '--cfg-options', *options))


def test_other_mistakes_are_named_too(configs, tmp_path):
    assert '--restart-from cdpos: choose from samples, selection, positive, negative, cdpo, dpo, comparison' in refused(
        configs, tmp_path / 'work', '--restart-from', 'cdpos'
    )
    other = configs / 'other_tiny.py'
    other.write_text(
        f"_base_ = '{configs / 'dpo_tiny.py'}'\nalignment = dict(sampling=dict(num_images=9))\n", encoding='utf-8'
    )
    found = refused(configs, tmp_path / 'work', methods=('dpo', 'other'))
    assert re.search(r'dpo and other differ in alignment\.sampling\.num_images 8 -> 9', found)
    plain = configs / 'plain_tiny.py'
    plain.write_text((configs / 'dpo_tiny.py').read_text().replace('alignment =', 'section ='))
    assert 'plain: the config has no section alignment' in refused(configs, tmp_path / 'work', methods=('plain',))
    assert 'each method needs a name' in refused(configs, tmp_path / 'work', methods=('dpo', 'dpo'))


def test_methods_have_short_names_unless_two_are_equal():
    assert method_names(['a/cdpo_x.py', 'dpo_x', 'addp_mm::rpo_x']) == ['cdpo', 'dpo', 'rpo']
    assert method_names(['cdpo_x', 'cdpo_y', 'dpo_x']) == ['cdpo_x', 'cdpo_y', 'dpo']
    for name in ('positive_x', 'comparison_x', 'logs', 'likelihood_x', 'alignment_x'):
        with pytest.raises(ConfigError, match='needs a name of its own'):
            method_names([name])


def test_without_weighted_methods_there_is_no_negative_model(configs):
    assert not read_plan([str(configs / 'dpo_tiny.py')]).has_weights
    assert read_plan([str(configs / 'cdpo_tiny.py')]).has_weights


def test_another_precision_of_a_training_is_said(configs):
    def faults(*options):
        return precision_faults(read_plan([str(configs / 'dpo_tiny.py')], options))

    bfloat16 = ['optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=bfloat16']
    assert faults() == []
    (fault,) = faults('alignment.sampling.amp=True', *(f'dpo.{option}' for option in bfloat16))
    assert 'sampled in bfloat16 (alignment.sampling.amp), and trained are likelihood in float32 (' in fault
    both = [f'{part}.{option}' for part in ('dpo', 'likelihood') for option in bfloat16]
    assert faults('alignment.sampling.amp=True', *both) == []
    assert (
        'sampled in float32 (alignment.sampling.amp), and trained are dpo in float16 ('
        in (faults('dpo.optim_wrapper.type=AmpOptimWrapper')[0])
    )


def test_options_change_the_section_without_a_warning(configs, capfd):
    options = ["alignment.comparison.measures.judge={'type': 'SceneReward'}", 'alignment.sampling.top_p=0.5']
    plan = read_plan([str(configs / 'cdpo_tiny.py')], [*options, 'likelihood.train_cfg.max_iters=9'])
    assert plan.comparison.measures['judge'] == dict(type='SceneReward')
    assert plan.sampling[-2:] == ('--top-p', '0.5')
    assert plan.likelihood.train_cfg.max_iters == 9
    assert 'warning' not in capfd.readouterr().err


def photos(folder, count):
    folder.mkdir()
    for number in range(count):
        Image.new('RGB', (16, 16), (40 * number, 90, 0)).save(folder / f'{number}.png')
    return str(folder)


def test_holes_in_images_are_questions_too(configs, tmp_path):
    import inpaint

    commands, folder = [], photos(tmp_path / 'photos', 2)

    def first(command, *_):
        commands.append(command)
        raise KeyboardInterrupt

    hole = f"alignment.inpainting={{'image': {folder!r}, 'box': (0, 0, 8, 16), 'num_samples': 3}}"
    with pytest.raises(SystemExit, match='130'):
        align(configs, tmp_path / 'a', first, '--cfg-options', hole)
    args = inpaint.parse_args(commands[0][2:])
    assert (args.image, args.box, args.num_samples, args.steps) == (folder, (0, 0, 8, 16), 3, 3)
    assert args.trajectories
    assert refused(configs, tmp_path / 'b', '--cfg-options', "alignment.inpainting={'image': 'photos'}").endswith(
        'alignment.inpainting needs mask, box or outpaint: what to generate'
    )
    other = hole.replace("'num_samples': 3", "'comparison': {'image': 'none'}")
    assert 'error: alignment.inpainting.comparison: ' in refused(configs, tmp_path / 'b', '--cfg-options', other)


def test_the_comparison_can_have_holes_of_its_own(configs, tmp_path):
    training, others = photos(tmp_path / 'photos', 2), photos(tmp_path / 'others', 3)
    section = dict(image=training, box='0,0,8,16', num_samples=5)

    def parts(**changed):
        plan = read_plan([str(configs / 'dpo_tiny.py')], [f'alignment.inpainting={section | changed!r}'])
        return SeedParts(plan, Contents('abc'), tmp_path / 'seed_0', 0, 1)

    same, fresh = parts(), parts(comparison=dict(image=others, num_samples=1))
    assert (same.plan.num_samples, same.plan.num_compared) == (10, 10)
    assert (fresh.plan.num_samples, fresh.plan.num_compared) == (10, 3)
    assert (same.plan.holes.are_fresh, fresh.plan.holes.are_fresh) == (False, True)
    assert same.work()['seed_0/samples'] == 10 * 3  # steps
    assert fresh.work()['seed_0/comparison/base'] == 3 * 3
    assert {name: stage.fingerprint for name, stage in same.stages.items()} == {
        name: stage.fingerprint for name, stage in fresh.stages.items()
    }
    (same.folder / 'comparison/base/images/000').mkdir(parents=True)
    assert same.changes() == {}  # a work dir of an earlier version compares in the holes of the training
    assert fresh.changes() == dict(comparison=[f'inpainting.0 {training} -> {others}', 'inpainting.4 5 -> 1'])
    assert fresh.changes(['comparison']) == {}
    fresh.note_compared_holes()
    assert fresh.changes() == {}
    assert [*same.changes()] == ['comparison']


def test_the_clock_knows_the_ends_when_it_knows_the_pace(monkeypatch):
    now = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr('addp_mm.alignment.pipeline.clock.time.monotonic', lambda: next(now))
    seen = []
    monkeypatch.setattr(
        'addp_mm.alignment.pipeline.clock.time_of_day', lambda seconds: seen.append(seconds) or f'+{seconds:g}'
    )
    clock = WorkClock(dict(samples=100.0, positive=300.0))
    assert clock.line('samples', 0.0, 'text') == 'samples: text (0%)'
    assert clock.line('samples', 0.5, 'text') == (
        'samples: text (50%); this stage ends about +10, all stages about +70'
    )
    clock.done('samples')
    assert clock.line('positive', 0.0, 'text').endswith('this stage ends about +60, all stages about +60')
