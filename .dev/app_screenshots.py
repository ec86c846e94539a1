# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write the figures of docs/app.md: one tab each, in the Chromium or Chrome of this computer.

    PYTHONPATH=tests python .dev/app_screenshots.py

The models are those that `addp app` has without options.
"""

import argparse
import runpy
import socket
from pathlib import Path

from helpers import page_driver
from PIL import Image

from addp_mm.app.page import served

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / 'docs/images'
COLORS = 256


def main():
    """Use each tab and write its screenshot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    tool = runpy.run_path(str(ROOT / 'tools/app.py'))
    models = tool['load_models'](tool['parse_args']([]))
    with socket.create_server(('127.0.0.1', 0)) as probe:
        port = probe.getsockname()[1]
    names = {name: IMAGES / f'app_{name}.png' for name in ('generate', 'detect', 'segment', 'steps', 'inpaint')}
    with (
        served(models, '127.0.0.1', port, max_upload_mb=1, max_queue=4),
        page_driver.visit(f'http://127.0.0.1:{port}/', page_driver.find_browser()) as visitor,
    ):
        page_driver.generate(visitor, names['generate'], 'trouser', 2)
        page_driver.predict(visitor, 'Detect', names['detect'], least=0.3)
        page_driver.predict(visitor, 'Segment', names['segment'])
        page_driver.watch_steps(visitor, 5, names['steps'])
        page_driver.draw_and_inpaint(visitor, names['inpaint'])
    for path in names.values():
        Image.open(path).convert('RGB').quantize(COLORS, kmeans=COLORS).save(path, optimize=True)


if __name__ == '__main__':
    main()
