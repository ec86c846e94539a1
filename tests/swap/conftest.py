# Copyright (c) addp_mm contributors. Apache-2.0.
import sys
from pathlib import Path

# the batch of pictures with boxes is shared with the tests of configs
sys.path.append(str(Path(__file__).parents[1] / 'configs'))
