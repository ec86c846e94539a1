# Copyright (c) addp_mm contributors. Apache-2.0.
import sys
from pathlib import Path

# the tiny ADDP is shared with the tests of generation
sys.path.append(str(Path(__file__).parents[1] / 'generation'))
