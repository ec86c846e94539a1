# Copyright (c) addp_mm contributors. Apache-2.0.
__version__ = '0.1.0'
