# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read config files and options; find shipped configs by name."""
