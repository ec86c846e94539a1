# Copyright (c) addp_mm contributors. Apache-2.0.
"""What .dev/demo.py and the benchmarks share: commands run as steps, their logs, and the page that shows them."""
