# Copyright (c) addp_mm contributors. Apache-2.0.
"""The parts of .dev/demo.py, and its report."""
