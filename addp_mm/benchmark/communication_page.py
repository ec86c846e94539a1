# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page of ``tools/benchmarks/communication.py``."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from addp_mm.report.markdown import markdown_table

EXPLANATION = (
    'Counted from the model and from one step of an image; no time was measured. Bytes are those of a ring: of N '
    'processes, each sends (N-1)/N of the whole tensors for an all-gather or a reduce-scatter, and twice that for an '
    'all-reduce. MB are 10^6 bytes.'
)
_TEXT = """
writes this page. **Nothing here was measured on a GPU.** Sizes and numbers of operations are
counted. With `--check`, two processes on the CPU must exchange exactly these sizes, and a table
says what they exchanged. Times follow from the rates that you state. Measure them on your cluster,
for example with nccl-tests and `tools/benchmarks/step_time.py`, and give them as options.

- **Strategies.** `DDP` is a training without a strategy. The others are `addp_mm.ShardedStrategy`
  with this `strategy.model_wrapper.sharding_strategy`. `HYBRID_SHARD` keeps a copy of the weights
  on each node. `bfloat16` is `mixed_precision=dict(param_dtype='bfloat16',
  reduce_dtype='bfloat16')`; with `--amp` alone, weights and gradients are exchanged in float32.
- **Images.** A step has the images of the recipe, spread over all GPUs, in passes of at most its
  batch size. If there are more GPUs than images, each gets one image.
- **DDP** exchanges gradients in the last pass of a step only, in buckets of 25 MiB. FSDP gathers
  weights and exchanges gradients in every pass.
- **Hidden** is the share of the exchange that runs while the process computes. A bucket starts when
  its last gradient is complete; the weights of a block are gathered while the block before it
  computes. One exchange runs at a time. The optimizer, memory traffic, and the load that an
  exchange puts on a GPU are left out, so a real step is slower.
- **Time of an exchange**: latency, and bytes by the slowest link. A ring passes each node once, so
  the network carries what one process sends. An all-reduce takes a tree if its latency is lower.
- **Growth.** The bytes of a process hardly grow with the number of GPUs. The rounds of a ring grow
  with it, so latency rules `FULL_SHARD` and `SHARD_GRAD_OP` on many nodes. `HYBRID_SHARD` has its
  rings on a node, and the trees of DDP grow with the logarithm. As a step keeps its images, each
  GPU computes less, and less is hidden.
- **Synchronised batch norms** (UperNet) wait for each other, and each gathers from all processes:
  their bytes and rounds grow with the number of GPUs. They run on GPUs only, so they are counted,
  and left out of the check. With `mixed_precision`, FSDP also makes each of them a unit in float32.
- With `--amp float16`, FSDP adds an all-reduce of 4 bytes for the loss scale. Saving a checkpoint
  with FSDP gathers weights and optimizer state once. Validation results are collected through
  files.
"""


def as_page(
    command: str, assumptions: str, groups: Sequence[Mapping[str, Any]], page: Path, figure: Path | None
) -> str:
    """The page in Markdown.

    Args:
        command: The command that writes it.
        assumptions: The stated rates, in one line.
        groups: The configs, each with ``title`` and ``tables``.
        page: File of the page.
        figure: File of the figure; None: there is none.
    """
    parts = ['# What the processes exchange', f'```bash\n{command}\n```', _TEXT.strip()]
    parts += [textwrap.fill(f'{EXPLANATION} {assumptions}', 100, break_long_words=False, break_on_hyphens=False)]
    if figure is not None:
        target = Path(os.path.relpath(figure, page.parent)).as_posix()
        parts.append(f'![Share of a step that computes, by number of GPUs]({target})')
    for group in groups:
        parts.append(f'## {group["title"]}')
        for table in group['tables']:
            parts += [f'### {table["title"]}', markdown_table(table['header'], table['rows'], numbers=True).rstrip()]
    return '\n\n'.join(parts) + '\n'
