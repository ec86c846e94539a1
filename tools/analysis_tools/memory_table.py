# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write docs/benchmarks/memory.md: what a training step of each ADDP recipe takes, worked out from shapes."""

import argparse
import gc
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs/benchmarks/memory.md'
# what takes the same memory as the recipe that it varies
SAME = ('-25e_', '_knn-', '512x512-ms', '_linear-avg', '-3x_')
ABLATIONS = (
    'addp_vit-base-p16_8xb64-accum8-bf16-coslr-100e',
    *(f'addp_vit-base-p16_{name}' for name in ('hard-', 'mask-', 'no-', 'predictor-')),
)
TASKS = dict(pretrain='Pre-training', cls='Classification', det='Detection', seg='Segmentation')
BUDGET = 'det/mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px.py'
HEAD = """# Memory of a training step

Written by `python tools/analysis_tools/memory_table.py`. **Every entry is analytic: not measured on a GPU.** They
are worked out on the CPU from the shapes that forward pass, losses and backward pass really go through
(`addp_mm.analysis`); `python tools/analysis_tools/get_flops.py CONFIG --memory` does so for any config, batch and size.
A GPU is measured by `tools/benchmarks/step_time.py`, see [gpu.md](gpu.md).

In GiB, for one GPU. *Activations*: what lives between forward and backward pass, and the bfloat16 copies of weights.
*Peak*: the most that lives at once, with weights, gradients, AdamW's two float32 states (LARS: one), the batch, and
what an operator hands to the next in the backward pass. `with_cp` computes the activations of the backbone's blocks
again in the backward pass. Operations and parameters by module: `get_flops.py` without `--memory`.

Not in it: the CUDA context (0.5 to 1 GiB), workspaces of libraries, what the allocator loses to fragments, and under
distributed data parallel training buckets as large as the gradients. Attention is counted as the fused kernels keep it
(queries, keys, values, bias, result). Autocast is the CPU's, which keeps some results in bfloat16 where CUDA takes
float32. Two-stage detectors see as many proposals, and as many positive ones, as their configs allow; an image holds 8
objects. For ADDP the noise level is one fixed draw. Variants that differ in length or evaluation alone are left out.
"""


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=PAGE, help=f'file to write [{PAGE.relative_to(ROOT)}]')
    return parser.parse_args(argv)


def recipes() -> list[str]:
    """Configs of ADDP at full size that train, one for each model, size of image and batch."""
    paths = [path for task in TASKS for path in sorted((ROOT / 'configs' / task).glob('*addp*vit-*-p16*.py'))]
    return [
        str(path.relative_to(ROOT / 'configs'))
        for path in paths
        if not any(part in path.name for part in SAME) and not path.name.startswith(ABLATIONS)
    ]


def row(name: str) -> str:
    """A line of the table."""
    from addp_mm.analysis.batches import precision_of, training_size
    from addp_mm.analysis.costs import gib, training_memory
    from addp_mm.config.config_file import load_config

    cfg = load_config(str(ROOT / 'configs' / name))
    height, width = training_size(cfg)
    without, with_cp = (training_memory(cfg, with_cp=value) for value in (False, True))
    numbers = (
        with_cp.parameters,
        with_cp.gradients,
        with_cp.optimizer,
        without.activations,
        with_cp.activations,
        without.peak,
        with_cp.peak,
    )
    cells = [
        f'[{Path(name).stem}](../../configs/{name})',
        f'{cfg.train_dataloader.batch_size} x {height} x {width}',
        precision_of(cfg),
        str(bool(cfg.model.backbone.get('with_cp'))),
        *(f'{gib(n):.2f}' for n in numbers),
        'analytic',
    ]
    return f'| {" | ".join(cells)} |'


COLUMNS = (
    'config',
    'images x height x width',
    'precision',
    '`with_cp` of the config',
    'weights',
    'gradients',
    'optimizer',
    'activations, without `with_cp`',
    'activations, with it',
    'peak, without `with_cp`',
    'peak, with it',
    'how',
)


def page(rows: dict[str, str], last: str = '') -> str:
    """The page with the rows that there are."""
    text = HEAD
    for task, title in TASKS.items():
        lines = [rows[name] for name in recipes() if name in rows and name.startswith(f'{task}/')]
        text += '\n'.join(
            ['', f'## {title}', '', f'| {" | ".join(COLUMNS)} |', '|---' * len(COLUMNS) + '|', *lines, '']
        )
    return text + last


def budget(name: str) -> str:
    """What Mask R-CNN with ViTDet-B takes for one image."""
    from addp_mm.analysis.costs import gib, training_memory
    from addp_mm.config.config_file import load_config

    cfg = load_config(str(ROOT / 'configs' / name))
    lines = [
        '',
        '## Mask R-CNN ViTDet-B, one image of 1024 px, 24 GB',
        '',
        'Peak in GiB (24 GB are 22.4 GiB), analytic, not measured on a GPU:',
        '',
        '| precision | `with_cp=False` | `with_cp=True` |',
        '|---|---|---|',
    ]
    peaks = {}
    for precision in ('float32', 'bfloat16'):
        peaks[precision] = [gib(training_memory(cfg, 1, precision=precision, with_cp=cp).peak) for cp in (False, True)]
        lines.append(f'| {precision} | {peaks[precision][0]:.2f} | {peaks[precision][1]:.2f} |')
    plain = peaks['bfloat16'][0]
    lines += [
        '',
        'The config (`with_cp=True`, bfloat16) fits by far'
        + (
            f'; without `with_cp` it takes {plain:.1f} GiB of the 22.4.'
            if plain < 20
            else f'; it needs `with_cp=True`: without it, it takes {plain:.1f} GiB, which leaves no room.'
        )
        + ' ViTDet-B in detectron2 ran out of 24 GB (detectron2#4496).',
    ]
    return '\n'.join(lines)


def main(argv=None):
    args = parse_args(argv)
    last, rows = budget(BUDGET) + '\n', {}
    for name in sorted(recipes(), key=lambda name: 'large' in name):
        rows[name] = row(name)
        gc.collect()
        args.out.write_text(page(rows, last))
        print(name, flush=True)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
