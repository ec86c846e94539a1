# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reports: HTML pages in one file, their figures, and the logs with their data."""
