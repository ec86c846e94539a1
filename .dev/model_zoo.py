# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write docs/model_zoo.md: every config, its command and its published number.

The numbers are read from the READMEs in the folders of the configs.
"""

import argparse
import re
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs/model_zoo.md'
TASKS = dict(
    pretrain=('Pre-training', 'FID / IS; top-1 % after fine-tuning'),
    cls=('Classification', 'top-1 %'),
    det=('Detection', 'box AP / mask AP'),
    seg=('Segmentation', 'mIoU, one scale / several'),
    align=('Alignment', 'none: no one has published this'),
)
HEAD = """# Model zoo

`python .dev/model_zoo.py` writes this page from the README of each folder of configs. The READMEs
have the sources of all values and the settings of each published number. *Published* is the number
that others report for this model and task, mostly with their own settings; "–" means that we know
no number. **Nothing at full size has been trained here, so the last column is empty.** The nano
recipes are measured on FashionScenes: [benchmarks/backbones.md](benchmarks/backbones.md). Memory
and operations of the ADDP recipes: [benchmarks/memory.md](benchmarks/memory.md). Step times:
[benchmarks/gpu.md](benchmarks/gpu.md).

Run the commands in the root of the repository, with the number of GPUs that the config is written
for. With fewer GPUs, see the READMEs. If a command has `NNODES`, run it on each machine, with
`NODE_RANK` and `MASTER_ADDR` set.
"""


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=PAGE, help=f'file to write [{PAGE.relative_to(ROOT)}]')
    return parser.parse_args(argv)


def published(task: str) -> dict[str, tuple[str, str]]:
    """Published numbers and their source for each config, from the tables of a README."""
    found, header, source = {}, [], ''
    for line in (ROOT / 'configs' / task / 'README.md').read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip('|').split('|')] if line.startswith('|') else []
        if 'config' in cells:
            header = cells
        names = re.findall(r'\(([\w.-]+\.py)\)', line) if cells else []
        if names:
            values = dict(zip(header, cells, strict=False))
            numbers = [value for key, value in values.items() if key.startswith('published')]
            source = source if values.get('source') == 'the same' else values.get('source', '')
            number = '; '.join(numbers) if any(re.search(r'\d', value) for value in numbers) else '–'
            found |= dict.fromkeys(names, (number, source if number != '–' else ''))
    return found


def num_gpus(config: str) -> int:
    """GPUs of a config: those of its name (a test compares it with the config), else computed.

    They are the batch size of its learning rate, divided by that of one GPU.
    """
    named = re.search(r'_(\d+)xb\d+', config)
    if named:
        return int(named[1])
    cfg = Config.fromfile(ROOT / config)
    batch = cfg.train_dataloader.batch_size * cfg.optim_wrapper.get('accumulative_counts', 1)
    return cfg.auto_scale_lr.base_batch_size // batch


def command(config: str) -> str:
    """Shell command that runs a config, given as ``configs/…``."""
    name = Path(config).name
    if config.startswith('configs/align/'):
        return f'addp align {config} --work-dir work_dirs/align'
    if '_knn-' in name:
        return f"tools/dist_test.sh {config} '' 8"
    if name.endswith('-ms.py'):
        return f'tools/dist_test.sh {config} CHECKPOINT 8'
    gpus = num_gpus(config)
    if gpus == 1 or 'nano' in name:
        return f'python tools/train.py {config}'
    return f'{f"NNODES={gpus // 8} " * (gpus > 8)}tools/dist_train.sh {config} {min(gpus, 8)}'


def table(task: str) -> str:
    """Table with a row for each config of a folder."""
    title, metric = TASKS[task]
    numbers = published(task)
    lines = [
        f'## {title}',
        '',
        f'| config | command | published: {metric} | source | reproduced here |',
        '|---|---|---|---|---|',
    ]
    for path in sorted((ROOT / 'configs' / task).glob('*.py')):
        config = f'configs/{task}/{path.name}'
        number, source = numbers.get(path.name, ('–', ''))
        lines.append(f'| [{path.stem}](../{config}) | `{command(config)}` | {number} | {source} | |')
    return '\n'.join(lines) + '\n'


def page() -> str:
    """The complete page."""
    return '\n'.join([HEAD, *map(table, TASKS)])


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    args.out.write_text(page())
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
