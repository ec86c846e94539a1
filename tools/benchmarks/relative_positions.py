# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare the ways to compute attention with decomposed relative positions.

It is the attention of one ViTDet block without its projections: in the windows of an image, and
over its whole map, forward, and forward and backward. The first way builds the whole bias. Queries,
keys and values are random. ``tools/benchmarks/backbone_time.py --kind rel-pos`` times whole
backbones.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial

from addp_mm.cli_options import add_timing_options, number

ARCHS = dict(small=(384, 6), base=(768, 12), large=(1024, 16))
PATCH = 16


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = dict(nargs='+', action='extend')
    parser.add_argument('--img-size', **several, type=number(int, PATCH), help='pixels of a side [512 1024]')
    parser.add_argument('--arch', choices=tuple(ARCHS), default='base', help='width and heads [base]')
    parser.add_argument('--window-size', type=number(int, 1), default=14, help='tokens of a side [14]')
    parser.add_argument('--batch-size', type=number(int, 1), default=1, help='images [1]')
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32', help='[float32]')
    add_timing_options(parser)
    return parser.parse_args(argv)


def flexible(query, key, value, rel_pos_h, rel_pos_w, hw, attention):
    """Attention without a class token through FlexAttention: the terms are read in its kernel."""
    from addp_mm.models.layers.rel_pos import rel_pos_terms

    rows, cols = rel_pos_terms(query, rel_pos_h, rel_pos_w, hw)

    def add_terms(score, image, head, at, to):
        return score + rows[image, head, at, to // hw[1]] + cols[image, head, at, to % hw[1]]

    return attention(query, key, value, score_mod=add_terms)


def without_positions(query, key, value, *_):
    """Attention without relative positions, to see what they cost."""
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(query, key, value)


def ways_of_attention(device) -> dict[str, Callable]:
    """The functions to compare, by name; FlexAttention needs CUDA."""
    import torch

    from addp_mm.models.layers import rel_pos_attention as layer

    ways = {'whole bias': layer.attend_plain, 'appended': layer.attend_appended, 'in chunks': layer.attend_in_chunks}
    ways['no positions'] = without_positions
    if device.type == 'cuda':
        from torch.nn.attention.flex_attention import flex_attention

        ways['FlexAttention'] = partial(flexible, attention=torch.compile(flex_attention))
    return ways


def cases(args, hw, maps: int, with_backward: bool) -> list:
    """The attention of one block on this number of maps or windows."""
    import torch

    from addp_mm.benchmark.paired_times import PRECISIONS, Case

    dims, heads = ARCHS[args.arch]
    shapes = [(maps, heads, math.prod(hw), dims // heads)] * 3 + [(2 * side - 1, dims // heads) for side in hw]
    dtype = PRECISIONS[args.precision]
    tensors = [torch.randn(one, device=args.device, dtype=dtype).requires_grad_(with_backward) for one in shapes]

    def run(way):
        with torch.set_grad_enabled(with_backward):
            out = way(*tensors, hw)
        if with_backward:
            out.backward(torch.ones_like(out))
            for one in tensors:
                one.grad = None

    return [Case(name, partial(run, way), args.precision) for name, way in ways_of_attention(args.device).items()]


def groups(args):
    """A group for each size, windows and map, forward and both passes."""
    from addp_mm.benchmark.timed_tool import Group

    window = args.window_size
    for size in args.img_size or [512, 1024]:
        side = math.ceil(size / PATCH)
        windows = args.batch_size * math.ceil(side / window) ** 2
        for kind, hw, maps in (('windows', (window, window), windows), ('the map', (side, side), args.batch_size)):
            for with_backward in (False, True):
                passes = 'forward and backward' if with_backward else 'forward'
                title = f'{args.batch_size} x {size} x {size}, {kind} of {hw[0]} x {hw[1]} tokens, {passes}'
                yield Group(title, cases(args, hw, maps, with_backward))


def main(argv=None):
    """Measure, print the tables, and write them."""
    args = parse_args(argv)
    from addp_mm.benchmark.timed_tool import measure_groups, prepare
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('finished groups are in --out'), exit_on_user_error():
        prepare(args)
        measure_groups('Attention with relative positions', groups(args), args)


if __name__ == '__main__':
    main()
