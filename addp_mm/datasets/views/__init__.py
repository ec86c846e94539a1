# Copyright (c) addp_mm contributors. Apache-2.0.
"""Views of an image: crops, flips, resizing."""
