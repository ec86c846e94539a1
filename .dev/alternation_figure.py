# Copyright (c) addp_mm contributors. Apache-2.0.
"""Draw docs/images/alternation.png: the alternating steps of one image.

The shipped nano weights generate it, so that the figure shows real steps.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.patches import ConnectionPatch

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py'
WEIGHTS = 'addp_mm://addp_nano-p8.safetensors'
NUM_STEPS, SHOWN = 8, (0, 2, 4, 6, 8)
ARROW = dict(arrowstyle='-|>', color='0.25', lw=1.4, shrinkA=2, shrinkB=2, mutation_scale=12)


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images/alternation.png')
    parser.add_argument('--seed', type=int, default=5, help='seed of the image [5]')
    return parser.parse_args(argv)


def token_image(step, codebook_size: int, side: int) -> np.ndarray:
    """Colours (side, side, 3) of the first image's token ids. Masked positions are light grey."""
    colours = plt.get_cmap('turbo')(np.linspace(0.05, 0.95, codebook_size))[:, :3]
    colours = np.random.default_rng(0).permutation(colours)
    shown = colours[step.ids[0].numpy()]
    shown[step.mask[0].numpy()] = 0.88
    return shown.reshape(side, side, 3)


def _arrow(figure, axis, start, other, end) -> None:
    """Draw an arrow between two axes; the points are in axes coordinates."""
    figure.add_artist(ConnectionPatch(start, end, axis.transAxes, other.transAxes, **ARROW))


def draw(steps, codebook_size: int, side: int, out: Path) -> None:
    """Draw the shown steps as columns: tokens above, pixels below, and the arrows between them."""
    figure, axes = plt.subplots(2, len(SHOWN), figsize=(11.5, 5.0), dpi=150)
    figure.subplots_adjust(left=0.075, right=0.99, top=0.93, bottom=0.115, wspace=0.42, hspace=0.5)
    for column, index in enumerate(SHOWN):
        step = steps[index]
        top, bottom = axes[:, column]
        top.imshow(token_image(step, codebook_size, side), interpolation='nearest')
        bottom.imshow(step.images[0].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation='nearest')
        masked = int(step.mask[0].sum())
        top.set_title('start' if index == 0 else f'step {index} of {NUM_STEPS}', fontsize=11)
        top.set_xlabel(f'{masked} of {side * side} masked', fontsize=9)
        for axis in (top, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
        _arrow(figure, top, (0.5, -0.16), bottom, (0.5, 1.02))
        if column + 1 < len(SHOWN):
            _arrow(figure, bottom, (1.02, 0.7), axes[0, column + 1], (-0.02, 0.3))
    axes[0, 0].set_ylabel('tokens', fontsize=11)
    axes[1, 0].set_ylabel('pixels', fontsize=11)
    axes[1, 2].set_xlabel(
        '↓ decode: the tokenizer turns tokens into pixels; masked positions show the expected code\n'
        '↗ predict: ViT and token decoder predict all masked tokens from the pixels; the most confident ones are kept',
        fontsize=10,
        labelpad=9,
    )
    figure.savefig(out)
    plt.close(figure)


def main(argv=None):
    """Generate one image and draw its steps."""
    args = parse_args(argv)
    from addp_mm.apis import generate, load_model

    model = load_model(str(ROOT / CONFIG), WEIGHTS)
    samples = generate(model, 1, seed=args.seed, keep_steps=True, num_steps=NUM_STEPS, temperature=2.0, top_p=0.95)
    draw(samples.steps, len(model.tokenizer.codebook), model.latent_size[0], args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
