# Copyright (c) addp_mm contributors. Apache-2.0.
"""What is logged before a runner exists is in its log file, once."""

from logging import WARNING

import pytest
from mmengine.logging import MMLogger, print_log

from addp_mm.engine.early_log import early_log


@pytest.mark.parametrize('known', [False, True])
def test_early_records_are_in_the_log_file(tmp_path, monkeypatch, known):
    path = tmp_path / 'run.log'
    logger = MMLogger(f'run of {tmp_path}', log_file=str(path))
    if known:
        monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
    before = list(MMLogger.get_current_instance().handlers)
    with early_log() as write_early:
        print_log('data.json: repaired', 'current', WARNING)
        write_early(logger)
        print_log('later', logger, WARNING)
    assert MMLogger.get_current_instance().handlers == before
    for handler in logger.handlers:
        handler.close()
    assert path.read_text().count('WARNING - data.json: repaired') == 1
    assert path.read_text().count('later') == 1
