# Copyright (c) addp_mm contributors. Apache-2.0.
"""Label maps of images, and the soft labels of the tokens of a view."""
