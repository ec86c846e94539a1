# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time the decoders of JPEG files, and compare their pixels.

The image is made up; it compresses about as a photograph does. OpenCV is the reader of mmcv, and so
of the recipes. PyTurboJPEG takes part if it is installed.
"""

import argparse
import io
from importlib.util import find_spec

from addp_mm.cli_options import add_timing_options, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--size', type=number(int, 16), nargs=2, metavar=('HEIGHT', 'WIDTH'), default=(375, 500), help='[375 500]'
    )
    parser.add_argument('--images', type=number(int, 1), default=20, help='images decoded in a timed step [20]')
    add_timing_options(parser, rounds=20)
    return parser.parse_args(argv)


def decoders(content):
    """Functions that decode the file to BGR (H, W, 3) of eight bits, by their names."""
    import cv2
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    from addp_mm.datasets.readers.load_image import LoadImage

    def with_pillow():
        with Image.open(io.BytesIO(content)) as image:
            return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)

    def with_torchvision():
        rgb = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
        return cv2.cvtColor(rgb.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2BGR)

    load = LoadImage()
    found = {
        'OpenCV': lambda: cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR),
        'Pillow': with_pillow,
        'torchvision': with_torchvision,
        'addp_mm.LoadImage': lambda: load(dict(img_path='made up', img_bytes=content))['img'],
    }
    if find_spec('turbojpeg'):
        from turbojpeg import TurboJPEG

        turbo = TurboJPEG()
        found['PyTurboJPEG'] = lambda: turbo.decode(content)
    return found


def main(argv=None):
    """Measure, print the table and the differences of pixels, and write the table."""
    args = parse_args(argv)
    import cv2
    import numpy as np

    from addp_mm.benchmark.made_up_jpeg import made_up_jpeg
    from addp_mm.benchmark.paired_times import Case
    from addp_mm.benchmark.timed_tool import Group, measure_groups, prepare
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        prepare(args)
        cv2.setNumThreads(1)
        content = made_up_jpeg(tuple(args.size), np.random.default_rng(args.seed))
        found = decoders(content)
        expected = found['OpenCV']().astype(int)
        for name, decode in found.items():
            print(f'{name}: differs from OpenCV by at most {np.abs(decode() - expected).max()} of 255')
        cases = [
            Case(
                name, lambda decode=decode: [decode() for _ in range(args.images)], images=args.images, count=lambda: 0
            )
            for name, decode in found.items()
        ]
        title = f'A JPEG file of {args.size[0]} x {args.size[1]} px, {len(content)} bytes'
        measure_groups(title, [Group(title, cases)], args, with_memory=False)


if __name__ == '__main__':
    main()
