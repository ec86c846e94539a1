# Copyright (c) addp_mm contributors. Apache-2.0.
"""The benchmark of ``addp check`` checks the annotations that it makes up."""

import pytest
from annotation_check import main


@pytest.mark.slow
def test_the_annotations_pass_the_checks(capsys):
    main(['--annotations', '200'])
    printed = capsys.readouterr().out
    assert ' checks passed' in printed
    assert '200 annotations, 0 MB: ' in printed
