# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reference forward passes of other projects' models, computed from their state dicts."""
