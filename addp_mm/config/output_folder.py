# Copyright (c) addp_mm contributors. Apache-2.0.
"""A folder of results that all have the same settings."""

import json
from collections.abc import Mapping
from pathlib import Path

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.config.paths import require_writable_folder
from addp_mm.errors import ConfigError

#: Records of the settings, in the output folders of addp generate and addp inpaint.
RECORDS = GENERATION, INPAINTING = 'generation.json', 'inpainting.json'


def claim_folder(results: Path, record: Path, settings: Mapping) -> None:
    """Create a folder of results with a record of their settings, or compare the existing record.

    If the folder has no results yet, the record is overwritten.

    Args:
        results: The folder. Hidden files are no results.
        record: JSON file of the settings, in this folder or another one.
        settings: Settings of all results, as JSON values.

    Raises:
        ConfigError: The folder cannot be written, contains other files, or has other settings.
    """
    require_writable_folder(results, f'--out {record.parent}')
    results.mkdir(parents=True, exist_ok=True)
    has_results = any(not path.name.startswith('.') and path != record for path in results.iterdir())
    if has_results and not record.is_file():
        raise ConfigError(f'{results} contains files but {record} is missing: choose another --out')
    if not has_results:
        write_json(record, settings)
        return
    try:
        found = json.loads(record.read_text())
    except ValueError as error:
        raise ConfigError(f'{record} is damaged ({error}): choose another --out') from error
    changed = [f'{key} {found.get(key)} -> {value}' for key, value in settings.items() if found.get(key) != value]
    if changed:
        raise ConfigError(
            f'{results} contains images of other settings ({"; ".join(changed)}): choose another --out, or remove '
            'that folder'
        )
