# Copyright (c) addp_mm contributors. Apache-2.0.
"""What lets the released OpenMMLab packages run on a current PyTorch."""


def install() -> None:
    """Put every mend in force. Calling it again changes nothing."""
