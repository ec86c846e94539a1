# Copyright (c) addp_mm contributors. Apache-2.0.
"""Put configs, tools and the model index into the wheel, as ``addp_mm/.mim``; everything else is in setup.cfg.

mim and mmengine look for them there. setuptools' own tables cannot say it: package data must lie
inside its package, and no package can have a name that starts with a dot.
"""

import os
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # an editable install reads them from the checkout
            return
        destination = os.path.join(self.build_lib, 'addp_mm', '.mim')
        shutil.rmtree(destination, ignore_errors=True)
        for name in ('configs', 'tools'):
            shutil.copytree(name, os.path.join(destination, name), ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy2('model-index.yml', destination)


setup(cmdclass={'build_py': BuildWithConfigs})
