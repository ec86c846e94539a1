# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare the ADDP loss with its lower bound, the entropy of its targets, by mask ratio."""

from addp_mm.cli_options import ToolParser, number
from addp_mm.errors import UserError, exit_on_interrupt, exit_on_user_error


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help='checkpoint of the pre-training: a path, or addp_mm://NAME')
    parser.add_argument('images', help='folder of PNG files of the size of the pre-training')
    parser.add_argument(
        '--num-images', type=number(int, 1), default=64, help='number of images, in the order of their names [64]'
    )
    parser.add_argument(
        '--levels', type=number(int, 1), default=4, help='number of noise levels, drawn with the seeds 0, 1, … [4]'
    )
    return parser.parse_args(argv)


def run(args):
    """Print a line for each noise level."""
    from pathlib import Path

    import torch

    from addp_mm.apis import load_model
    from addp_mm.datasets.readers.read_image import read_rgb
    from addp_mm.diffusion import nested_masks

    paths = sorted(Path(args.images).glob('*.png'))[: args.num_images]
    if not paths:
        raise UserError(f'{args.images} has no PNG files')
    model = load_model(args.config, args.checkpoint).eval()
    images = torch.stack([torch.tensor(read_rgb(path)) for path in paths]).permute(0, 3, 1, 2) / 255
    smoothing, vocab_size = model.head.loss_module.label_smoothing, model.head.token_space.vocab_size
    with torch.no_grad():
        ids, latents = model.tokenize(images)
        for seed in range(args.levels):
            generator = torch.Generator().manual_seed(seed)
            level = model.schedule.sample(generator)
            mask, mask_next = nested_masks(ids.shape[1], level, len(ids), generator, images.device)
            noisy, target = model.add_noise(ids, latents, mask, mask_next)
            states = model.neck(model.extract_feat(noisy)[-1], ids, mask)
            loss = model.head.loss(states, model.neck.word_embed.weight, target, mask)['loss']
            truth = ids[mask]
            smooth = (1 - smoothing) * torch.nn.functional.pad(target, (0, vocab_size - target.shape[1]))
            smooth = smooth + smoothing / vocab_size
            entropy, least = (torch.special.entr(p).sum(1).mean().item() for p in (target, smooth))
            likelihood = target.gather(1, truth[:, None]).log().mean().item()
            right = (target.argmax(1) == truth).float().mean().item()
            print(
                f'mask ratio {level.ratio:.2f}: entropy of the targets {entropy:.2f} nats, log-probability of the '
                f'true code {likelihood:.2f}, accuracy {right:.1%}; ADDP loss {loss:.3f}, lower bound {least:.3f}'
            )


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        run(args)


if __name__ == '__main__':
    main()
