# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest

from addp_mm.config.output_folder import claim_folder


@pytest.mark.parametrize('name', ['000000.png', '000000.webp'])
def test_results_keep_the_settings_of_their_folder(tmp_path, name):
    results, record = tmp_path / 'images', tmp_path / 'record.json'
    claim_folder(results, record, dict(seed=0))
    (results / name).touch()
    claim_folder(results, record, dict(seed=0))
    with pytest.raises(ValueError, match='seed 0 -> 1'):
        claim_folder(results, record, dict(seed=1))


def test_a_record_in_the_folder_and_hidden_files_are_no_results(tmp_path):
    (tmp_path / '.lock').touch()
    claim_folder(tmp_path, tmp_path / 'record.json', dict(seed=0))
    claim_folder(tmp_path, tmp_path / 'record.json', dict(seed=1))
    assert '"seed": 1' in (tmp_path / 'record.json').read_text()


def test_files_of_others_are_refused(tmp_path):
    (tmp_path / 'mine.txt').touch()
    with pytest.raises(ValueError, match='record.json is missing'):
        claim_folder(tmp_path, tmp_path / 'record.json', dict(seed=0))
