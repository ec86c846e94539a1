# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reference forward passes of other projects' models, run from their own state dicts."""
