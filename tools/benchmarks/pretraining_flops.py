# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operations of whole pre-trainings, to compare them at equal compute.

A step is one forward pass of everything and the backward pass of what is trained, on synthetic
images, or on ids if the config trains on stored ones. It is counted by torch's FlopCounterMode:
matrix products and convolutions, a multiplication with its addition as two. The optimizer is not
counted. Several steps are averaged: ADDP's depends on the noise level.
"""

import argparse

from addp_mm.cli_options import ToolParser, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='path of a config in configs/pretrain')
    parser.add_argument('--batch-size', type=number(int, 1), default=16, help='images in a counted step [16]')
    parser.add_argument(
        '--img-size', type=number(int, 1), nargs=2, metavar=('HEIGHT', 'WIDTH'), help='pixels [as in training]'
    )
    parser.add_argument('--steps', type=number(int, 1), default=20, help='counted steps [20]')
    parser.add_argument('--seed', type=number(int, 0), default=0, help='seed of weights and noise levels [0]')
    return parser.parse_args(argv)


def flops_per_image(cfg, batch_size: int, img_size, steps: int) -> tuple[float, float]:
    """Operations of an image in the forward pass, and in a whole step; the mean of several."""
    from addp_mm.analysis.batches import build_model, scope_of, synthetic_batch, training_size
    from addp_mm.analysis.costs import flop_counter
    from addp_mm.checkpoints.init_weights import init_weights

    model = build_model(cfg).train()
    forward = total = 0
    with scope_of(cfg):
        init_weights(model)  # frozen components refuse to run without their weights
        batch = synthetic_batch(cfg, batch_size, img_size or training_size(cfg))
        data = model.data_preprocessor(batch, training=True)
        for _ in range(steps):
            with flop_counter() as counter:
                loss, _ = model.parse_losses(model(**data, mode='loss'))
                forward += counter.get_total_flops()
                loss.backward()
            total += counter.get_total_flops()
    return forward / steps / batch_size, total / steps / batch_size


def images_of(cfg) -> int:
    """Images of a whole training, on as many processes as the config is written for."""
    return cfg.train_cfg.max_iters * cfg.auto_scale_lr.base_batch_size


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    import torch

    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        for path in args.configs:
            cfg = load_config(path, None, argument_kinds)
            torch.manual_seed(args.seed)
            forward, step = flops_per_image(cfg, args.batch_size, args.img_size and tuple(args.img_size), args.steps)
            images = images_of(cfg)
            print(
                f'{path}: {forward / 1e6:.1f} MFLOPs forward and {step / 1e6:.1f} with backward for an image, '
                f'{images:,} images, {step * images / 1e12:.1f} TFLOPs'
            )


if __name__ == '__main__':
    main()
