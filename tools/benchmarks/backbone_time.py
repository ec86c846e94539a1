# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time the ViT backbone forward, and forward and backward, against timm and mmpretrain.

The kinds: a plain ViT with global attention (timm's and mmpretrain's VisionTransformer), windows
with four global blocks, and the same with relative positions (mmpretrain's ViTSAM; timm's has both,
too). Weights and images are random. Operations are counted without computing, and those of the
backward pass as twice those of the forward pass.
"""

import argparse

from addp_mm.cli_options import add_timing_options, number

KINDS = ('global', 'windows', 'rel-pos')
SIZES = (224, 512, 1024)
MODES = ('inference', 'training')
# blocks, heads, width; and the blocks with global attention among windows of 14 x 14 tokens
ARCHS = {'tiny': (2, 2, 32, (1,)), 'base': (12, 12, 768, (2, 5, 8, 11)), 'large': (24, 16, 1024, (5, 11, 17, 23))}
PATCH, WINDOW = 16, 14


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = dict(nargs='+', action='extend')
    parser.add_argument('--arch', choices=list(ARCHS), default='base', help='size of the backbone [base]')
    parser.add_argument('--kind', **several, choices=KINDS, help='attention [all]')
    parser.add_argument('--mode', **several, choices=MODES, help='what to time [both]')
    parser.add_argument('--precision', **several, choices=('float32', 'bfloat16'), help='precisions [float32]')
    parser.add_argument('--img-size', **several, type=number(int, 16), help='sides of the images [224 512 1024]')
    parser.add_argument('--batch-size', type=number(int, 1), default=1, help='images in a step [1]')
    add_timing_options(parser)
    return parser.parse_args(argv)


def builders(kind, arch, size):
    """Functions that build each library's backbone, by its name."""
    blocks, heads, width, ends = ARCHS[arch]
    windows = dict(window_size=WINDOW, global_blocks=ends)

    def ours():
        from addp_mm.models.backbones import ADDPViT

        own = dict(embed_dims=width, num_layers=blocks, num_heads=heads)
        options = {} if kind == 'global' else dict(windows, with_cls_token=False, use_rel_pos=kind == 'rel-pos')
        return ADDPViT(own, img_size=size, patch_size=PATCH, out_type='featmap', **options)

    def timm():
        from timm.models.vision_transformer import VisionTransformer
        from timm.models.vision_transformer_sam import VisionTransformerSAM

        common = dict(img_size=size, patch_size=PATCH, embed_dim=width, depth=blocks, num_heads=heads, num_classes=0)
        if kind == 'global':
            return VisionTransformer(**common, global_pool='')
        options = dict(window_size=WINDOW, global_attn_indexes=ends, use_rel_pos=kind == 'rel-pos', neck_chans=0)
        return VisionTransformerSAM(**common, **options)

    def mmpretrain():
        from mmpretrain.models import VisionTransformer, ViTSAM

        own = dict(embed_dims=width, num_layers=blocks, num_heads=heads, feedforward_channels=4 * width)
        if kind == 'global':
            return VisionTransformer(own, img_size=size, patch_size=PATCH, out_type='featmap')
        own['global_attn_indexes'] = ends
        options = dict(window_size=WINDOW, use_rel_pos=kind == 'rel-pos', out_channels=0)
        return ViTSAM(own, img_size=size, patch_size=PATCH, out_type='raw', **options)

    return {'timm': timm, 'mmpretrain': mmpretrain, 'addp_mm': ours}


def forward_flops(model, images):
    """Operations of a forward pass, counted on tensors without values."""
    import copy

    import torch

    from addp_mm.analysis.costs import flop_counter

    empty = copy.deepcopy(model).to('meta')
    with torch.no_grad(), flop_counter() as counter:
        empty(images.to('meta'))
    return counter.get_total_flops()


def case(name, model, images, precision, mode, device):
    """The steps of one backbone."""
    import torch

    from addp_mm.benchmark.paired_times import Case, autocast

    training = mode == 'training'
    flops = forward_flops(model, images) * (3 if training else 1)
    model.to(device)
    model.train(training)  # mmengine's modules return nothing

    def run():
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(training), autocast(device, precision):
            out = model(images)
            out = out[-1] if isinstance(out, (tuple, list)) else out
        if training:
            out.float().mean().backward()

    return Case(name, run, precision, len(images), count=lambda: flops)


def groups(args):
    """A group for each size, kind, mode and precision."""
    import torch
    from mmengine.registry import DefaultScope

    from addp_mm.benchmark.timed_tool import Group

    for size in args.img_size or SIZES:
        images = torch.rand(args.batch_size, 3, size, size).to(args.device)
        for kind in args.kind or KINDS:
            with DefaultScope.overwrite_default_scope('mmpretrain'):
                models = {name: build() for name, build in builders(kind, args.arch, size).items()}
            for mode in args.mode or MODES:
                for precision in args.precision or ['float32']:
                    title = f'ViT {args.arch}, {args.batch_size} x {size} x {size}, {kind}, {mode}, {precision}'
                    cases = [case(name, model, images, precision, mode, args.device) for name, model in models.items()]
                    yield Group(title, cases)


def main(argv=None):
    """Measure, print the tables, and write them."""
    args = parse_args(argv)
    import addp_mm.registry  # noqa: F401  # before mmpretrain, whose imports it prepares
    from addp_mm.benchmark.timed_tool import measure_groups, prepare
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('finished groups are in --out'), exit_on_user_error():
        prepare(args)
        measure_groups('Backbone', groups(args), args)


if __name__ == '__main__':
    main()
