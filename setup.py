# Copyright (c) addp_mm contributors. Apache-2.0.
"""Put configs, tools and the model index into the wheel, as ``addp_mm/.mim``.

mim and mmengine look for them there. setup.cfg cannot do this: package data must be inside its
package, and a package name cannot start with a dot. All other settings are in setup.cfg.
"""

import os
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Build the package, then copy the files beside it."""

    def run(self):
        """Build."""
        super().run()
        if self.editable_mode:  # an editable install reads them from the checkout
            return
        destination = os.path.join(self.build_lib, 'addp_mm', '.mim')
        shutil.rmtree(destination, ignore_errors=True)
        for name in ('configs', 'tools'):
            shutil.copytree(name, os.path.join(destination, name), ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy2('model-index.yml', destination)


setup(cmdclass={'build_py': BuildWithConfigs})
