# Copyright (c) addp_mm contributors. Apache-2.0.
"""Show what the shipped weights predict, then pre-train and fine-tune a little, in one report.

Each step calls a tool of this repository, and its command is printed. Finished steps are not
repeated, so that you can continue an interrupted demo. The report, work_dirs/demo/report.html, is
there when the predictions are done, and is written again after the trainings.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo_report.comparison import comparison
from demo_report.demo_page import build_page
from demo_report.dense import dense_predictions
from demo_report.garments import generated_garments
from demo_report.generation import edited_scenes, generated_scenes
from demo_report.parts import ASSETS, ROOT, Part, Setting
from demo_report.pretraining import pretraining

from addp_mm.benchmark.step import Step
from addp_mm.benchmark.step_runner import Done, StepError, StepRunner, clock
from addp_mm.cli_options import number
from addp_mm.errors import first_few
from addp_mm.report.logs import LogError
from addp_mm.report.machine import cores

# What the report shows, in this order. Predictions need no training.
PREDICTIONS = (generated_scenes, generated_garments, edited_scenes, dense_predictions)
TRAININGS = (pretraining, comparison)
# Enough for these trainings; the default sizes take longer to write.
SIZES = ('--train', '4000', '--val', '200', '--objects-train', '0', '--objects-val', '0')
SHORT_SIZES = ('--train', '64', '--val', '16', '--objects-train', '0', '--objects-val', '0')
# If these files change, the scenes are out of date; the error of the tool has a remedy.
SCENE_SOURCES = (Path('addp_mm/datasets/fashion/fashion_scenes.py'), ASSETS / 'fashion_mnist_subset.npz')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--short',
        action='store_true',
        help='a few iterations and images, to check that everything works; writes work_dirs/demo_short',
    )
    parser.add_argument(
        '--jobs',
        type=number(int, 1),
        default=min(2, cores()),
        metavar='N',
        help='steps at once, of about 1.5 GB each (default: 2, or 1 on one core)',
    )
    return parser.parse_args(argv)


class Demo:
    """The parts of a demo, and its report.

    Args:
        setting: Where it writes.
        predictions: Parts that show the shipped weights.
        trainings: Parts that train.
    """

    def __init__(self, setting: Setting, predictions: list[Part], trainings: list[Part]) -> None:
        self.setting, self.predictions, self.trainings = setting, predictions, trainings
        self.report = setting.folder / 'report.html'
        self.steps = [setting.scenes, *(step for part in [*predictions, *trainings] for step in part.steps)]
        self._shown = False

    def show_predictions(self, done: Mapping[str, Done]) -> None:
        """Write the report once when the predictions are done, while the trainings go on."""
        wanted = {self.setting.scenes.name, *(step.name for part in self.predictions for step in part.steps)}
        if self._shown or not wanted <= done.keys() or len(done) == len(self.steps):
            return
        self._shown = True
        self.write(done)
        print(f'{self.report}: open it in a browser; it shows the predictions. The trainings go on.', flush=True)

    def write(self, done: Mapping[str, Done]) -> int:
        """Write the report of the parts that are done; returns its size in bytes."""
        parts = [*self.predictions, *self.trainings]
        return build_page(parts, self.setting.scenes, done, self.setting.short).write(self.report)


def plan(folder: Path, short: bool) -> Demo:
    """The parts of the demo in ``folder``; nothing is run."""
    data_root = folder / 'fashion_scenes'
    scenes = Step(
        'scenes',
        'Write FashionScenes',
        (
            'tools/dataset_converters/fashion_scenes.py',
            str(data_root),
            *(SHORT_SIZES if short else SIZES),
            '--num-workers',
            '2',
        ),
        (data_root / 'fashion_scenes.json',),
        SCENE_SOURCES,
    )
    setting = Setting(folder, scenes, data_root, short)
    predictions, trainings = ([part(setting) for part in parts] for parts in (PREDICTIONS, TRAININGS))
    return Demo(setting, predictions, trainings)


def missing_assets(steps: Sequence[Step]) -> list[str]:
    """Files of the package that steps need, and that do not exist."""
    needed = dict.fromkeys(path for step in steps for path in step.inputs if ASSETS in path.parents)
    return [str(path) for path in needed if not (ROOT / path).is_file()]


def main(argv: list[str] | None = None) -> None:
    """Run the demo."""
    args = parse_args(argv)
    os.chdir(ROOT)
    began = time.monotonic()
    demo = plan(Path('work_dirs/demo_short' if args.short else 'work_dirs/demo'), args.short)
    missing = missing_assets(demo.steps)
    if missing:
        sys.exit(f'error: missing files: {first_few(missing)}. The checkout is incomplete: clone the repository again')
    try:
        runner = StepRunner(demo.setting.folder, args.jobs, max(1, cores() // args.jobs))
        size = demo.write(runner.run(demo.steps, watch=demo.show_predictions))
    except (StepError, LogError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit(f'\ninterrupted; `python {" ".join(sys.argv)}` continues at this step')
    print(f'{demo.report}: {size / 1e6:.1f} MB, after {clock(time.monotonic() - began)} minutes. Open it in a browser.')


if __name__ == '__main__':
    main()
