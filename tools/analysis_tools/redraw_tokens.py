# Copyright (c) addp_mm contributors. Apache-2.0.
r"""Do token scores find the tokens that spoil an image? Draw those with the lowest scores again.

    python tools/analysis_tools/redraw_tokens.py CONFIG CHECKPOINT --samples DIR --selection FILE \
        --scores FILE --reward CONFIG --out DIR

DIR of --samples is a folder of 'addp generate --trajectories'. In each wrong image of the
selection, a share of the tokens is drawn again: those with the lowest scores, and as controls those
with the lowest probability, and random ones. All other tokens stay. A second form replaces one
token at its step, and continues from there. The folder gets the share of images that become right
(redraw.json, redraw.svg), and some of the images (redraw.png).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from addp_mm.cli_options import ToolParser, add_device_option, aligned, number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from addp_mm.alignment.redraw_experiment import Case, RedrawExperiment
    from addp_mm.alignment.rewards import Reward
    from addp_mm.generation import AlternatingSampler
    from addp_mm.generation.trajectories.trajectories import Trajectories

SHOWN = 8
SHARES = ('1/8', '1/4')


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the pre-training: a file, or the name of a shipped config')
    parser.add_argument('checkpoint', help='checkpoint that generated the images: a path or addp_mm://NAME')
    parser.add_argument(
        '--samples',
        required=True,
        metavar='DIR',
        help="folder of 'addp generate' or 'addp inpaint' with --trajectories",
    )
    parser.add_argument('--selection', required=True, metavar='FILE', help='right and wrong samples, JSON')
    parser.add_argument('--scores', required=True, metavar='FILE', help='scores of the tokens, safetensors')
    parser.add_argument('--reward', required=True, metavar='CONFIG', help='config with alignment.reward, or reward')
    parser.add_argument('--out', required=True, help='folder for redraw.json, redraw.svg and redraw.png')
    parser.add_argument(
        '--shares',
        type=share,
        nargs='+',
        action='extend',
        help=f'shares of the tokens of an image that are drawn again [{" ".join(SHARES)}]',
    )
    parser.add_argument('--draws', type=number(int, 1), default=4, help='draws of each image [4]')
    parser.add_argument(
        '--threshold',
        type=number(float),
        help='an image is right from this reward on [the lowest reward of a right image of the same question]',
    )
    parser.add_argument('--num-images', type=number(int, 1), help='wrong images, evenly spaced by their numbers [all]')
    parser.add_argument('--batch-size', type=number(int, 1), default=16, help='images that are drawn together [16]')
    parser.add_argument('--seed', type=number(int, 0, 2**32 - 1), default=0, help='seed of the draws [0]')
    add_device_option(parser)
    args = parser.parse_args(argv)
    args.shares = list(dict.fromkeys(args.shares or map(share, SHARES)))
    return args


def share(text: str) -> float:
    """A ``type`` for argparse: a number in (0, 1], also as a fraction."""
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f'{text} must be a share above 0 and at most 1, such as 1/8 or 0.125')
    return value


def reward_of(config: str, device: torch.device) -> Reward:
    """The reward that a config file defines, on a device if it has one.

    Raises:
        ConfigError: The file does not exist, or has no reward.
    """
    from addp_mm.alignment.rewards import build_reward
    from addp_mm.config.config_file import load_config
    from addp_mm.errors import ConfigError

    cfg = load_config(config).to_dict()
    found = (cfg.get('alignment') or {}).get('reward') or cfg.get('reward')
    if found is None:
        raise ConfigError(
            f"{config} has neither alignment.reward nor reward: write, for example, reward = dict(type='SceneReward')"
        )
    return build_reward(found, device=device)


@dataclass
class Inputs:
    """What the files contain; they belong together.

    Attributes:
        numbers: Numbers of the images of the trajectories.
        right: Rows of right images.
        wrong: Rows of wrong images.
        scores: Of the tokens of the wrong images, (W, L).
    """

    numbers: list[int]
    trajectories: Trajectories
    settings: dict
    scores: Tensor
    right: list[int]
    wrong: list[int]
    reward: Reward
    sampler: AlternatingSampler


def read_inputs(args) -> Inputs:
    """Read the files, and check that they belong together.

    Raises:
        UserError: A file cannot be read, or belongs to others; or the selection has no right or no
            wrong image.
    """
    from addp_mm.alignment.pairs import read_selection
    from addp_mm.alignment.score_files import read_scores
    from addp_mm.apis import load_model
    from addp_mm.checkpoints.fingerprint import module_fingerprint
    from addp_mm.engine.device import choose_device
    from addp_mm.generation.trajectories.sampler_settings import sampler_of
    from addp_mm.generation.trajectories.trajectories import TrajectoryError
    from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles, check_settings

    folder = Path(args.samples) / 'trajectories'
    numbers, trajectories, settings = TrajectoryFiles(folder).read()
    selection = read_selection(Path(args.selection), numbers, settings)
    if not selection.wrong or not selection.right:
        raise TrajectoryError(
            f'{args.selection} has no {"wrong" if selection.right else "right"} image: generate more images, or select '
            'with another rule'
        )
    device = choose_device(args.device)
    scores, reward = read_scores(Path(args.scores), selection.wrong, settings), reward_of(args.reward, device)
    model = load_model(args.config, args.checkpoint, device)
    check_settings(settings, dict(weights=module_fingerprint(model)), folder)
    row_of = {image: row for row, image in enumerate(numbers)}
    right, wrong = ([row_of[image] for image in side] for side in (selection.right, selection.wrong))
    sampler = sampler_of(settings, model, model.latent_size)
    return Inputs(numbers, trajectories, settings, scores, right, wrong, reward, sampler)


def choose_wrong(inputs: Inputs, args) -> tuple[list[int], dict]:
    """The wrong images whose reward is not that of a right one.

    Returns:
        Which of ``inputs.wrong`` they are, and what redraw.json says about them.

    Raises:
        UserError: There are none.
    """
    from addp_mm.alignment.pairs import questions_of
    from addp_mm.alignment.redraw_experiment import decoded_images, rewards_of, right_thresholds
    from addp_mm.generation.trajectories.trajectories import TrajectoryError

    def rewards(rows: list[int]) -> list[float]:
        own = inputs.trajectories[rows]
        images = decoded_images(inputs.sampler, own, args.batch_size)
        return rewards_of(inputs.reward, images, own.labels, args.batch_size).tolist()

    thresholds = [args.threshold] * len(inputs.wrong)
    if args.threshold is None:
        questions = (questions_of(inputs.trajectories[rows]) for rows in (inputs.right, inputs.wrong))
        thresholds = right_thresholds(rewards(inputs.right), *questions)
    before = rewards(inputs.wrong)
    kept = [index for index, reward in enumerate(before) if reward < thresholds[index]]
    if not kept:
        raise TrajectoryError(
            f'all {len(before)} wrong images of {args.selection} have the reward of a right one: give a higher '
            '--threshold, or select others'
        )
    images = [inputs.numbers[row] for row in inputs.wrong]
    already_right = [image for index, image in enumerate(images) if index not in kept]
    # the selection has the images of a question side by side: by their numbers, questions mix
    kept = sorted(kept, key=lambda index: images[index])
    count = min(len(kept), args.num_images or len(kept))
    kept = [kept[part * len(kept) // count] for part in range(count)]
    columns = dict(images=images, rewards_before=before, thresholds=thresholds)
    about = {name: [column[index] for index in kept] for name, column in columns.items()}
    return kept, dict(about, already_right=already_right)


def draw_again(experiment: RedrawExperiment, shares: list[float], draws: int) -> list[Case]:
    """All cases: for each share, and for the second form, all choices."""
    from tqdm import tqdm

    from addp_mm.alignment.redraw_experiment import CHOICES
    from addp_mm.alignment.redraw_figures import case_name

    steps = experiment.sampler.schedule.num_steps * len(experiment.numbers) * draws
    cases = []
    with tqdm(total=steps * len(CHOICES) * (len(shares) + 1), unit='step', unit_scale=True) as bar:
        experiment.progress = bar.update
        for value in (*shares, None):
            for choice in CHOICES:
                bar.set_description(f'{case_name(value)}: {choice}')
                found = experiment.tokens_again(choice, value) if value else experiment.from_the_step_on(choice)
                cases += [] if found is None else [found]
    return cases


def write_results(experiment: RedrawExperiment, cases: list[Case], results: dict, shares: list[float], out: Path):
    """Write redraw.json, redraw.svg and redraw.png."""
    from PIL import Image

    from addp_mm.alignment.redraw_experiment import LOWEST_SCORE, RANDOM, decoded_images
    from addp_mm.alignment.redraw_figures import redraw_grid, right_bars
    from addp_mm.checkpoints.atomic_write import write_json, write_png, write_text
    from addp_mm.generation.figures import to_uint8

    write_json(out / 'redraw.json', results)
    write_text(out / 'redraw.svg', right_bars(cases).content.decode())
    first = experiment.trajectories[:SHOWN]
    shown = {case.choice: case for case in cases if case.share == shares[0]}
    grid = redraw_grid(
        [*to_uint8(decoded_images(experiment.sampler, first, SHOWN))],
        experiment.scores[:SHOWN],
        first.generated,
        experiment.sampler.grid_size,
        {choice: shown[choice] for choice in (LOWEST_SCORE, RANDOM)},
    )
    write_png(out / 'redraw.png', Image.fromarray(grid))


def results_of(cases: list[Case]) -> dict:
    """The cases, and how the lowest scores differ from both controls."""
    from addp_mm.alignment.redraw_experiment import LOWEST_SCORE

    by_share = {}
    for case in cases:
        by_share.setdefault(case.share, {})[case.choice] = case
    differences = [
        found[LOWEST_SCORE].minus(other)
        for found in by_share.values()
        for choice, other in found.items()
        if choice != LOWEST_SCORE
    ]
    return dict(cases=[case.summary() for case in cases], differences=differences)


def table(results: dict) -> str:
    """The cases and the differences from the controls, with their intervals, as text."""
    from addp_mm.alignment.redraw_figures import case_name

    def text(found: dict, unit: str) -> str:
        value, *limits = (None if found[key] is None else f'{found[key]:{unit}}' for key in ('value', 'low', 'high'))
        return value if None in limits else f'{value} ({" to ".join(limits)})'

    percent, plain = partial(text, unit='.1%'), partial(text, unit='.4g')

    rows = [('drawn again', 'chosen by', 'become right', 'reward', 'other id')]
    for case in results['cases']:
        numbers = percent(case['right']), plain(case['reward']), f'{case["changed"]:.1%}'
        rows.append((case_name(case['share']), case['choice'], *numbers))
    differences = [('drawn again', 'difference', 'become right', 'reward')]
    for one in results['differences']:
        what = f'{one["choice"]} - {one["minus"]}'
        differences.append((case_name(one['share']), what, percent(one['right']), plain(one['reward'])))
    return f'{aligned(rows)}\n\n{aligned(differences)}'


def run(args) -> None:
    """Draw the tokens again, and write what came of it."""
    from addp_mm.alignment.redraw_experiment import RedrawExperiment
    from addp_mm.config.paths import require_writable_folder

    out = Path(args.out)
    require_writable_folder(out, f'--out {out}')
    inputs = read_inputs(args)
    kept, about = choose_wrong(inputs, args)
    if about['already_right']:
        print(f'{len(about["already_right"])} wrong image(s) have the reward of a right one, and are left out')
    experiment = RedrawExperiment(
        inputs.sampler,
        inputs.settings,
        inputs.reward,
        inputs.trajectories[[inputs.wrong[index] for index in kept]],
        inputs.scores[kept],
        about['images'],
        about['thresholds'],
        args.seed,
        args.draws,
        args.batch_size,
        SHOWN,
    )
    cases = draw_again(experiment, args.shares, args.draws)
    if all(case.share is not None for case in cases):
        print('no step kept two tokens, so that no token has a control at its step: nothing is continued')
    about |= dict(reward=inputs.reward.name, seed=args.seed, draws=args.draws, settings=inputs.settings)
    results = dict(about, **results_of(cases))
    write_results(experiment, cases, results, args.shares, out)
    before = sum(about['rewards_before']) / len(kept)
    print(table(results))
    print(f'\n{len(kept)} image(s) of the mean reward {before:.4g}, {args.draws} draw(s): {out / "redraw.json"}')


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error(OSError):
        run(args)


if __name__ == '__main__':
    main()
