# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare the ways to compute attention with decomposed relative positions.

Two tables for each image size. "attention": the attention of one block without its projections, in
windows and over the whole map. "backbone": ViTDet's backbone with each way in all blocks, with the
rule that decides by shape, and mmpretrain's ViTSAM. Weights and images are random. The ways take
turns, so that changes in the speed of the machine affect all of them. Added memory is the peak of
one run above what was in use before it.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

from addp_mm.cli_options import ToolParser, number

WAYS = ('plain', 'appended', 'in rows')
PARTS = ('attention', 'backbone')
STATUS, CLEAR_REFS = Path('/proc/self/status'), Path('/proc/self/clear_refs')
ARCHS = dict(small=(384, 6), base=(768, 12), large=(1024, 16))


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='what to measure [all]')
    parser.add_argument(
        '--img-size', type=number(int, 16), nargs='+', default=[512, 1024], help='pixels of a side [512 1024]'
    )
    parser.add_argument('--arch', choices=tuple(ARCHS), default='base', help='width and heads [base]')
    parser.add_argument('--depth', type=number(int, 2), default=12, help='blocks of a backbone [12]')
    parser.add_argument('--window-size', type=number(int, 1), default=14, help='tokens of a side [14]')
    parser.add_argument('--batch-size', type=number(int, 1), default=1, help='images [1]')
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32', help='[float32]')
    parser.add_argument('--rounds', type=number(int, 1), default=5, help='timed turns of each way [5]')
    parser.add_argument('--device', help='cuda, cuda:1 or cpu [cuda if there is a GPU]')
    parser.add_argument('--seed', type=number(int, 0), default=0, help='seed of weights and images [0]')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write every time to this file, too')
    return parser.parse_args(argv)


@dataclass
class Case:
    """A way, and what was measured of it: seconds of each turn and bytes of added memory."""

    name: str
    run: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    added_bytes: int | None = None


def time_in_turns(cases, device, rounds: int) -> None:
    """Run each case once for its memory, then time all of them in turns."""
    for case in cases:
        case.run()
        case.added_bytes = added_memory(case.run, device)
    for _ in range(rounds):
        for case in cases:
            start = finished(device)
            case.run()
            case.seconds.append(finished(device) - start)


def finished(device) -> float:
    """The time when the device has computed everything."""
    import torch

    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter()


def added_memory(run: Callable[[], object], device) -> int | None:
    """Peak of a call above what was in use before it, in bytes; None where it is unknown."""
    import torch

    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        CLEAR_REFS.write_text('5')  # the peak starts again at the memory of now
        before = resident('VmRSS')
        run()
        return max(0, resident('VmHWM') - before)
    except OSError:
        return None


def resident(name: str) -> int:
    """A size in bytes that Linux reports for this process."""
    return 1024 * int(STATUS.read_text().partition(f'{name}:')[2].split()[0])


def flexible(query, key, value, rel_pos_h, rel_pos_w, hw, attention):
    """Attention without a class token through FlexAttention: the terms are read in its kernel."""
    from addp_mm.models.layers.rel_pos import rel_pos_terms

    rows, cols = rel_pos_terms(query, rel_pos_h, rel_pos_w, hw)

    def add_terms(score, image, head, at, to):
        return score + rows[image, head, at, to // hw[1]] + cols[image, head, at, to % hw[1]]

    return attention(query, key, value, score_mod=add_terms)


def without_positions(query, key, value, *_):
    """Attention without relative positions: what the others are to come near to."""
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(query, key, value)


def ways_of_attention(device) -> dict[str, Callable]:
    """The functions to compare, by name; FlexAttention needs a GPU."""
    import torch

    from addp_mm.models.layers import rel_pos_attention as layer

    functions = dict(zip(WAYS, (layer.attend_plain, layer.attend_appended, layer.attend_in_rows), strict=True))
    functions['no positions'] = without_positions
    if device.type == 'cuda':
        from torch.nn.attention.flex_attention import flex_attention

        functions['FlexAttention'] = partial(flexible, attention=torch.compile(flex_attention))
    return functions


def attention_cases(args, hw, batch_size: int, with_backward: bool) -> list[Case]:
    """The attention of one block on maps (or windows) of this size."""
    import torch

    dims, heads = ARCHS[args.arch]
    shape = (batch_size, heads, math.prod(hw), dims // heads)
    shapes = [shape] * 3 + [(2 * side - 1, dims // heads) for side in hw]
    dtype = getattr(torch, args.precision)
    tensors = [torch.randn(one, device=args.device, dtype=dtype).requires_grad_(with_backward) for one in shapes]

    def run(path):
        with torch.set_grad_enabled(with_backward):
            out = path(*tensors, hw)
        if with_backward:
            out.backward(torch.ones_like(out))
            for one in tensors:
                one.grad = None

    return [Case(name, partial(run, path)) for name, path in ways_of_attention(args.device).items()]


def build_backbones(args, img_size: int) -> dict:
    """ViTDet's backbone as ADDPViT and as mmpretrain's ViTSAM."""
    import torch
    from mmengine.registry import DefaultScope
    from mmpretrain.models.backbones import ViTSAM

    from addp_mm.models.backbones import ADDPViT

    dims, heads = ARCHS[args.arch]
    global_blocks = [i for i in range(args.depth) if (i + 1) % max(1, args.depth // 4) == 0]
    arch = dict(embed_dims=dims, num_layers=args.depth, num_heads=heads, feedforward_channels=4 * dims)
    same = dict(img_size=img_size, patch_size=16, window_size=args.window_size, use_rel_pos=True)
    torch.manual_seed(args.seed)
    ours = ADDPViT(
        arch, **same, global_blocks=global_blocks, with_cls_token=False, out_type='featmap', final_norm=False
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        theirs = ViTSAM(dict(arch, global_attn_indexes=global_blocks), **same, out_channels=0)
    return dict(ADDPViT=ours.to(args.device), ViTSAM=theirs.to(args.device))


def backbone_cases(args, img_size: int, backbones: dict, with_backward: bool) -> list[Case]:
    """A whole backbone, with each way and with the rule; and ViTSAM."""
    import torch

    from addp_mm.models.layers import rel_pos_attention as layer

    image = torch.rand(args.batch_size, 3, img_size, img_size, device=args.device)
    lower = args.precision != 'float32'

    def run(model, path=None):
        forced = nullcontext() if path is None else mock.patch.object(layer, 'choose_path', return_value=path)
        with forced, torch.set_grad_enabled(with_backward):
            with torch.autocast(args.device.type, torch.bfloat16, enabled=lower):
                out = model(image)[0]
            if with_backward:
                out.float().square().mean().backward()
                model.zero_grad()

    functions = ways_of_attention(args.device)
    cases = [Case(f'ADDPViT, {name}', partial(run, backbones['ADDPViT'], functions[name])) for name in WAYS]
    cases.append(Case('ADDPViT, the rule', partial(run, backbones['ADDPViT'])))
    return [*cases, Case("mmpretrain's ViTSAM", partial(run, backbones['ViTSAM']))]


def groups_of(args):
    """What is compared with one another: a title, and a function that makes the cases."""
    for size in args.img_size:
        side, window = size // 16, args.window_size
        if 'attention' in args.parts:
            windows = args.batch_size * math.ceil(side / window) ** 2
            maps = dict(windows=((window, window), windows), map=((side, side), args.batch_size))
            for kind, (hw, number_of) in maps.items():
                yield (
                    f'attention at {size} px, {kind} of {hw[0]} x {hw[1]}',
                    partial(attention_cases, args, hw, number_of),
                )
        if 'backbone' in args.parts:
            backbones = build_backbones(args, size)
            yield f'backbone at {size} px', partial(backbone_cases, args, size, backbones)


def table(cases) -> str:
    """Medians, quartiles, speed against the first case in the same turns, and added memory."""
    lines = ['| way | ms (quartiles) | speed against the first | added memory, MiB |', '|---|---:|---:|---:|']
    for case in cases:
        low, middle, high = statistics.quantiles([1e3 * one for one in case.seconds] * 2, n=4)
        ratio = statistics.median(a / b for a, b in zip(cases[0].seconds, case.seconds, strict=True))
        added = 'not measured' if case.added_bytes is None else f'{case.added_bytes / 2**20:.0f}'
        lines.append(f'| {case.name} | {middle:.4g} ({low:.4g} to {high:.4g}) | {ratio:.2f} | {added} |')
    return '\n'.join(lines)


def measure(args) -> list[dict]:
    """Measure and print group after group."""
    import torch

    from addp_mm.engine.device import choose_device
    from addp_mm.report.machine import machine_class

    args.device = choose_device(args.device)
    torch.manual_seed(args.seed)
    about = f'{args.device}: {machine_class()}; torch {torch.__version__}, {torch.get_num_threads()} threads'
    print(f'{about}; {args.precision}, batch {args.batch_size}, {args.rounds} turns')
    found = []
    for title, make_cases in groups_of(args):
        for with_backward in (False, True):
            cases = make_cases(with_backward=with_backward)
            time_in_turns(cases, args.device, args.rounds)
            what = f'{title}, {"forward and backward" if with_backward else "forward"}'
            print(f'\n{what}\n\n{table(cases)}', flush=True)
            rows = [dict(name=case.name, seconds=case.seconds, added_bytes=case.added_bytes) for case in cases]
            found.append(dict(title=what, cases=rows))
    return found


def main(argv=None):
    """Measure, and print the tables."""
    args = parse_args(argv)
    from addp_mm.checkpoints.atomic_write import write_json
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        if args.out is not None:
            require_writable(args.out, '--out')
        found = measure(args)
        if args.out is not None:
            write_json(args.out, dict(device=str(args.device), precision=args.precision, groups=found))


if __name__ == '__main__':
    main()
