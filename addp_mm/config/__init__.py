# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reading config files and options, and the names of shipped configs."""
