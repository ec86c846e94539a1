# Copyright (c) addp_mm contributors. Apache-2.0.
"""Draw docs/images/inpainting*.png and outpainting.png: figures of `addp inpaint`.

The shipped nano weights fill scenes of FashionScenes, so that the figures show real samples.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from addp_mm.datasets.fashion.scene_writer import SceneSetSpec, write_fashion_scenes

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px'
WEIGHTS = 'addp_mm://addp_nano-p8.safetensors'
SAMPLING = ('--steps', '8', '--schedule', 'power:3.1', '--order', 'halton', '--top-p', '0.69', '--device', 'cpu')
SIDE = 64


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images', help='folder of the figures [docs/images]')
    return parser.parse_args(argv)


def write_large(scenes: list[Path], folder: Path) -> tuple[Path, Path]:
    """Write an image of four scenes, and a mask with a disk where they meet."""
    image, mask = Image.new('RGB', (2 * SIDE, 2 * SIDE)), Image.new('L', (2 * SIDE, 2 * SIDE))
    for index, scene in enumerate(scenes):
        with Image.open(scene) as part:
            image.paste(part, (index % 2 * SIDE, index // 2 * SIDE))
    ImageDraw.Draw(mask).ellipse((36, 36, 91, 91), fill=255)
    paths = folder / 'large.png', folder / 'mask.png'
    image.save(paths[0])
    mask.save(paths[1])
    return paths


def draw(image: Path, options: tuple[str, ...], figure: Path, folder: Path) -> None:
    """Run the tool, and copy its figure."""
    out = folder / figure.stem
    command = [sys.executable, '-m', 'addp_mm', 'inpaint', CONFIG, WEIGHTS, str(image), '--out', str(out)]
    subprocess.run([*command, *options, *SAMPLING], check=True, cwd=ROOT)
    shutil.copyfile(out / 'figures' / image.name, figure)
    print(f'wrote {figure}')


def main(argv=None):
    """Write scenes, fill them and copy the figures."""
    args = parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = SceneSetSpec(image_size=SIDE, train=1, val=23, objects_train=10, objects_val=10)
        write_fashion_scenes(folder / 'data', spec)
        scenes = sorted((folder / 'data/scenes/val').iterdir())
        large, mask = write_large([scenes[index] for index in (6, 13, 5, 22)], folder)
        draw(scenes[6], ('--box', '24,16,32,32'), args.out / 'inpainting.png', folder)
        draw(large, ('--mask', str(mask)), args.out / 'inpainting_tiles.png', folder)
        draw(scenes[1], ('--outpaint', '32,0,32,32'), args.out / 'outpainting.png', folder)


if __name__ == '__main__':
    main()
