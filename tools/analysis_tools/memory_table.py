# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write docs/benchmarks/memory.md: counted operations, and the peak memory of a training step.

The memory is measured on the CPU, in a fresh process of tools/benchmarks/step_time.py for each
recipe. A recipe that does not fit into memory is listed as not measured.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs/benchmarks/memory.md'
MEASURE = ('tools/benchmarks/step_time.py', '--device', 'cpu', '--rounds', '1', '--warmup', '0', '--steps', '1')
# One recipe with ViT-B for each kind of model, and the batch size of the measurement.
RECIPES = {
    'pretrain/addp_vit-base-p16_8xb64-accum8-bf16-coslr-1600e_in1k-256px.py': 4,
    'cls/addp-vit-base-p16_ft_8xb128-bf16-coslr-100e_in1k-256px.py': 16,
    'det/mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px.py': 1,
    'det/dino-4scale_addp-vit-base-p16_8xb2-fp32-12e_coco.py': 1,
    'seg/upernet_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512.py': 2,
    'seg/segmenter-mask_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512.py': 2,
    'seg/mask2former_addp-vit-base-p16_8xb2-fp32-160k_ade20k-512x512.py': 2,
}
HEAD = """# Memory of a training step

```bash
python tools/analysis_tools/memory_table.py
```

writes this page: one recipe with ViT-B for each kind of model. **Nothing here was measured on a
GPU.** On a GPU, `tools/benchmarks/step_time.py CONFIG` measures time and memory
([gpu.md](gpu.md)).

- **Parameters** (trained and frozen) and **GMACs** (operations of one forward pass of one image)
  are counted; `tools/analysis_tools/get_flops.py CONFIG` lists them by module.
- **CPU peak** is measured: the resident memory of a fresh process on the CPU that runs one training
  step (forward and backward pass, update) with the batch size of the table. It includes the
  interpreter and all libraries.
- On the CPU, attention with a bias or with dropout keeps the scores of all pairs of tokens. The
  fused attention of a GPU does not keep them.
- The proposals of a two-stage detector come from random weights. Few of them are positive, so the
  mask head sees fewer of them than in a real training.

The command for a row:

```bash
python {measure} --batch-size B CONFIG
```

| config | images x height x width | precision | `with_cp` | trained, M | frozen, M | GMACs per image | CPU peak, GiB |
|---|---|---|---|---|---|---|---|
""".format(measure=' '.join(MEASURE))


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=PAGE, help=f'file to write [{PAGE.relative_to(ROOT)}]')
    return parser.parse_args(argv)


def measured_peak(config: Path, batch_size: int) -> str:
    """Peak memory in GiB of a training step, or 'not measured' if the process was killed."""
    command = [sys.executable, *MEASURE, '--batch-size', str(batch_size), str(config)]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode < 0 or 'not enough memory' in done.stderr:
        return 'not measured'
    if done.returncode:
        sys.exit(f'error: {" ".join(command)} failed:\n{done.stderr}')
    return done.stdout.strip().rsplit(' | ', 1)[1].removesuffix(' |')


def row(name: str, batch_size: int) -> str:
    """A line of the table."""
    from addp_mm.analysis.batches import precision_of, training_size
    from addp_mm.analysis.costs import forward_costs
    from addp_mm.config.config_file import load_config

    path = ROOT / 'configs' / name
    cfg = load_config(str(path))
    cost = forward_costs(cfg)
    height, width = training_size(cfg)
    cells = [
        f'[{path.stem}](../../configs/{name})',
        f'{batch_size} x {height} x {width}',
        precision_of(cfg),
        'yes' if cfg.model.backbone.get('with_cp') else 'no',
        f'{cost.trained / 1e6:.1f}',
        f'{cost.frozen / 1e6:.1f}',
        f'{cost.macs / 1e9:.1f}',
        measured_peak(path, batch_size),
    ]
    return f'| {" | ".join(cells)} |\n'


def main(argv=None):
    """Count and measure the recipes, and write the page."""
    args = parse_args(argv)
    from addp_mm.checkpoints.atomic_write import write_text
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt(f'{args.out} was not written'), exit_on_user_error():
        require_writable(args.out, '--out')
        rows = []
        for name, batch_size in RECIPES.items():
            rows.append(row(name, batch_size))
            print(rows[-1], end='', flush=True)
        write_text(args.out, HEAD + ''.join(rows))
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
