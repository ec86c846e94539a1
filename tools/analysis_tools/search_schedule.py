# Copyright (c) addp_mm contributors. Apache-2.0.
"""Search the schedule of generation with the smallest Fréchet distance at a number of steps.

Optuna proposes the ratio, the order, the temperature, top-p and top-k of each trial; the first
trial is the published schedule. All trials generate images from the same seed. The last line of the
output is the 'addp generate' command with the best schedule. The folder gets the table of all
trials (trials.md, trials.json), a figure (trials.png) and the state of the search (search.db).

Run the same command again to continue an interrupted search, or to add trials to it.
"""

import argparse
import shlex
from pathlib import Path

from addp_mm.cli_options import ToolParser, add_device_option, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the pre-training: a file, or the name of a shipped config')
    parser.add_argument('checkpoint', help='checkpoint of the pre-training: a path or addp_mm://NAME')
    parser.add_argument('reference', help='folder of images, or .npz file of images or statistics, to compare with')
    parser.add_argument('--out', required=True, help='folder for the results')
    parser.add_argument('--steps', type=number(int, 1), required=True, help='alternating steps of every schedule')
    parser.add_argument('--trials', type=number(int, 1), default=50, help='trials in the folder at the end [50]')
    parser.add_argument('--num-images', type=number(int, 2), default=1000, help='images of each trial [1000]')
    parser.add_argument('--batch-size', type=number(int, 1), default=50, help='images that are generated together [50]')
    parser.add_argument(
        '--extractor',
        metavar='CONFIG',
        help="config file with an 'extractor', or NAME of configs/_base_/evaluation/NAME_features.py "
        "[Inception with FID's weights]",
    )
    parser.add_argument(
        '--img-size',
        type=number(int, 1),
        metavar='PIXELS',
        help='resize the shorter side of the images in the folder to this, and crop the centre [no resizing]',
    )
    parser.add_argument('--seed', type=number(int, 0, 2**32 - 1), default=0, help='seed of all random numbers [0]')
    add_device_option(parser)
    return parser.parse_args(argv)


def require_optuna() -> None:
    """Refuse to start without Optuna."""
    from importlib.util import find_spec

    from addp_mm.errors import UserError

    if find_spec('optuna') is None:
        raise UserError("the search needs Optuna, which is not installed. Type\n    pip install 'addp_mm[search]'")


def read_reference(args, extractor, device):
    """Statistics of the reference, by the extractor."""
    from addp_mm.errors import ConfigError
    from addp_mm.evaluation import Reference
    from addp_mm.evaluation.compare_images import missing_for

    reference = Reference(args.reference, extractor, args.img_size, None, args.batch_size, device)
    missing = missing_for('fid', extractor, reference, args.num_images)
    if missing:
        raise ConfigError(f'the Fréchet distance cannot be computed: {missing}')
    return reference.statistics()


def open_study(out: Path, settings: dict):
    """The study in the folder, whose trials all have these settings."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    from addp_mm.errors import ConfigError
    from addp_mm.generation.schedule_search import PUBLISHED

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = out / 'search.db'
    try:
        study = optuna.create_study(storage=f'sqlite:///{file}', study_name='schedule', load_if_exists=True)
    except SQLAlchemyError as error:
        raise ConfigError(
            f'{file} is not a search that can be continued ({error.args[0]}): choose another --out'
        ) from error
    found = study.user_attrs.get('settings', settings)
    changed = [f'{key} {found.get(key)} -> {value}' for key, value in settings.items() if found.get(key) != value]
    if changed:
        raise ConfigError(
            f'{out} contains a search with other settings ({"; ".join(changed)}): choose another --out, or remove '
            'that folder'
        )
    study.set_user_attr('settings', settings)
    states = optuna.trial.TrialState
    if not study.get_trials(deepcopy=False, states=(states.WAITING, states.COMPLETE)):
        study.enqueue_trial(PUBLISHED)
    return study


def finished(study) -> list:
    """The trials with a result, in their order; an interrupted trial has none."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def generated_statistics(sampler, extractor, args, progress):
    """Statistics of the images that the sampler generates."""
    from addp_mm.evaluation import FeatureStatistics
    from addp_mm.evaluation.batches import to_bytes
    from addp_mm.generation import image_generator

    statistics = FeatureStatistics(extractor.name, extractor.fingerprint)
    for begin in range(0, args.num_images, args.batch_size):
        indices = range(begin, min(begin + args.batch_size, args.num_images))
        generators = [image_generator(args.seed, index) for index in indices]
        samples = sampler.complete(*sampler.blank(len(indices)), generators, progress=progress)
        statistics.update(extractor(to_bytes(samples.images)))
    return statistics


def search(study, model, extractor, reference, args) -> None:
    """Run the trials that are missing; write the tables after each."""
    from optuna.samplers import TPESampler
    from tqdm import tqdm

    from addp_mm.evaluation import frechet_distance
    from addp_mm.generation import AlternatingSampler
    from addp_mm.generation.schedule_search import command_options, suggest_schedule

    missing = max(0, args.trials - len(finished(study)))
    with tqdm(total=missing * args.num_images * args.steps, unit='step', desc=f'{missing} trials') as bar:
        while (done := len(finished(study))) < args.trials:
            # An interruption changes no proposal: each trial has its seed, and unfinished ones do
            # not count (constant_liar).
            study.sampler = TPESampler(seed=(args.seed + done) % 2**32, constant_liar=False)
            trial = study.ask()
            schedule = suggest_schedule(trial, args.steps, len(model.tokenizer.codebook))
            options = shlex.join(command_options(schedule))
            trial.set_user_attr('options', options)
            sampler = AlternatingSampler(model, model.latent_size, schedule)
            distance = frechet_distance(generated_statistics(sampler, extractor, args, bar.update), reference)
            study.tell(trial, distance)
            bar.write(f'trial {done}: {distance:.4f}  {options}')
            bar.set_postfix(best=f'{study.best_value:.4f}')
            write_tables(results_of(study), Path(args.out))


def results_of(study) -> dict:
    """The content of trials.json."""
    trials = [
        dict(trial=number, distance=trial.value, options=trial.user_attrs['options'])
        for number, trial in enumerate(finished(study))
    ]
    best = min(trials, key=lambda trial: trial['distance'])
    return dict(settings=study.user_attrs['settings'], best=best, trials=trials)


def as_markdown(results: dict) -> str:
    """The content of trials.md: all trials, the best one first."""
    settings = ', '.join(f'{key}: {value}' for key, value in results['settings'].items())
    rows = sorted(results['trials'], key=lambda trial: trial['distance'])
    table = [f'| {row["trial"]} | {row["distance"]:.4f} | `{row["options"]}` |' for row in rows]
    return '\n'.join(
        [
            '# Schedules by Fréchet distance',
            '',
            f'Trial 0 is the published schedule. Settings: {settings}.',
            '',
            '| trial | Fréchet distance | options of `addp generate` |',
            '|---|---|---|',
            *table,
            '',
        ]
    )


def draw(results: dict, path: Path) -> None:
    """Draw the distance of each trial, and the smallest so far."""
    from itertools import accumulate

    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    from addp_mm.checkpoints.atomic_write import atomic_path

    distances = [trial['distance'] for trial in results['trials']]
    figure = Figure((6.4, 4), layout='constrained')
    axes = figure.subplots()
    axes.plot(distances, 'o', markersize=4, color='#9a958a', label='trial')
    axes.step(
        range(len(distances)), list(accumulate(distances, min)), where='post', color='#1f5fa8', label='best so far'
    )
    axes.axhline(distances[0], linestyle='--', linewidth=1, color='#b04a2f', label='published schedule')
    axes.set_xlabel('trial')
    axes.set_ylabel('Fréchet distance')
    axes.set_yscale('log')  # bad schedules are far away
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(LogFormatter(minor_thresholds=(2, 1)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, format='png', dpi=150)


def write_tables(results: dict, out: Path) -> None:
    """Write trials.json and trials.md."""
    from addp_mm.checkpoints.atomic_write import write_json, write_text

    write_json(out / 'trials.json', results)
    write_text(out / 'trials.md', as_markdown(results))


def settings_of(args, model, extractor, reference) -> dict:
    """Everything that all trials of a folder have in common."""
    from addp_mm.checkpoints.fingerprint import module_fingerprint

    return dict(
        config=Path(args.config).name,
        weights=module_fingerprint(model)[:12],
        steps=args.steps,
        num_images=args.num_images,
        seed=args.seed,
        extractor=f'{extractor.name} ({extractor.fingerprint[:12]})',
        reference=Path(args.reference).name,
        reference_images=reference.count,
        img_size=args.img_size,
    )


def run(args) -> None:
    """Search, and print the best schedule."""
    require_optuna()
    from contextlib import closing

    from addp_mm.apis import load_model
    from addp_mm.config.paths import require_writable_folder
    from addp_mm.engine.device import choose_device
    from addp_mm.evaluation import build_extractor
    from addp_mm.folder_lock import lock_folder
    from addp_mm.generation import AlternatingSampler, SamplingSchedule

    device, out = choose_device(args.device), Path(args.out)
    require_writable_folder(out, f'--out {out}')
    model = load_model(args.config, args.checkpoint, device)
    AlternatingSampler(model, model.latent_size, SamplingSchedule(args.steps))  # refuses too many steps
    extractor = build_extractor(args.extractor).to(device)
    reference = read_reference(args, extractor, device)
    with closing(lock_folder(out)):
        study = open_study(out, settings_of(args, model, extractor, reference))
        search(study, model, extractor, reference, args)
    results = results_of(study)
    draw(results, out / 'trials.png')
    best, published = results['best'], results['trials'][0]
    print(
        f'best of {len(results["trials"])} trials: trial {best["trial"]}, Fréchet distance {best["distance"]:.4f}; '
        f'the published schedule has {published["distance"]:.4f} ({out / "trials.md"})'
    )
    print(f'addp generate {shlex.join([args.config, args.checkpoint])} --out FOLDER {best["options"]}')


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_user_error(OSError), exit_on_interrupt('finished trials are kept; the same command continues'):
        run(args)


if __name__ == '__main__':
    main()
