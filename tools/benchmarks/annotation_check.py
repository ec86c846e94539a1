# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time and memory of ``addp check`` on a made-up COCO file, in a process of its own."""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from addp_mm.cli_options import number
from addp_mm.errors import exit_on_interrupt

SIZE = 64  # edge of the images in pixels
CLASSES = ('t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle-boot')
CONFIG = """
_base_ = 'addp_mm::det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'
train_dataloader = dict(dataset=dict(data_root='{root}/', ann_file='annotations.json', data_prefix=dict(img='')))
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--annotations', type=number(int, 10), default=1000000, metavar='N', help='ten in each image [1000000]'
    )
    return parser.parse_args(argv)


def write_annotations(path: Path, count: int) -> None:
    """Write annotations with polygons of eight points, all on one image file."""
    numbers = random.Random(0)
    images = [dict(id=k, file_name='image.png', width=SIZE, height=SIZE) for k in range(1, count // 10 + 1)]
    categories = [dict(id=k, name=name) for k, name in enumerate(CLASSES, 1)]
    with open(path, 'w') as file:
        file.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": [')
        for k in range(len(images) * 10):
            x, y, width, height = (round(numbers.uniform(5, 30), 2) for _ in range(4))
            polygon = [round(start + numbers.random() * edge, 2) for start, edge in ((x, width), (y, height)) * 8]
            record = dict(id=k + 1, image_id=k // 10 + 1, category_id=numbers.randint(1, 10), iscrowd=0)
            record |= dict(bbox=[x, y, width, height], area=round(width * height, 2), segmentation=[polygon])
            file.write((',' if k else '') + json.dumps(record))
        file.write(']}')


def main(argv: list[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    with exit_on_interrupt('nothing was measured'), tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        Image.new('RGB', (SIZE, SIZE)).save(root / 'image.png')
        write_annotations(root / 'annotations.json', args.annotations)
        (root / 'config.py').write_text(CONFIG.format(root=root))
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, '-m', 'addp_mm', 'check', str(root / 'config.py'), '--split', 'train', '--no-model'],
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - begin
        size = (root / 'annotations.json').stat().st_size
    print(done.stdout, done.stderr)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f'{args.annotations:,} annotations, {size / 1e6:.0f} MB: {seconds:.0f} s, peak memory {peak / 1e9:.2f} GB')


if __name__ == '__main__':
    main()
