# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write the figures of docs/app.md: one tab each, in the Chromium or Chrome of this computer.

    PYTHONPATH=tests python .dev/app_screenshots.py DETECTOR.pth SEGMENTOR.pth

The checkpoints are those of the nano recipes of docs/app.md.
"""

import argparse
import socket
from pathlib import Path

from helpers import page_driver
from PIL import Image

from addp_mm.apis import load_model
from addp_mm.app.dense_predictor import load_predictor
from addp_mm.app.page import PageModels, served
from addp_mm.config.config_file import load_config

IMAGES = Path(__file__).parents[1] / 'docs/images'
ADDP = 'addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px', 'addp_mm://addp_nano-p8.safetensors'
DETECTOR = 'mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px'
SEGMENTOR = 'upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px'
COLORS = 256


def main():
    """Use each tab and write its screenshot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detector', help=f'checkpoint of {DETECTOR}')
    parser.add_argument('segmentor', help=f'checkpoint of {SEGMENTOR}')
    args = parser.parse_args()
    models = PageModels(
        load_model(load_config(ADDP[0]), ADDP[1]),
        detector=load_predictor(DETECTOR, args.detector, 'det'),
        segmentor=load_predictor(SEGMENTOR, args.segmentor, 'seg'),
    )
    with socket.create_server(('127.0.0.1', 0)) as probe:
        port = probe.getsockname()[1]
    names = {name: IMAGES / f'app_{name}.png' for name in ('generate', 'detect', 'segment', 'steps', 'inpaint')}
    with (
        served(models, '127.0.0.1', port, max_upload_mb=1, max_queue=4),
        page_driver.visit(f'http://127.0.0.1:{port}/', page_driver.find_browser()) as visitor,
    ):
        page_driver.generate(visitor, names['generate'])
        page_driver.predict(visitor, 'Detect', names['detect'], least=0.2)
        page_driver.predict(visitor, 'Segment', names['segment'])
        page_driver.watch_steps(visitor, 12, names['steps'])
        page_driver.draw_and_inpaint(visitor, names['inpaint'])
    for path in names.values():
        Image.open(path).convert('RGB').quantize(COLORS, kmeans=COLORS).save(path, optimize=True)


if __name__ == '__main__':
    main()
