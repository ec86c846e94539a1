# Copyright (c) addp_mm contributors. Apache-2.0.
"""Shared by .dev/demo.py and the benchmarks: steps, fine-tunings, and the report of the demo."""
