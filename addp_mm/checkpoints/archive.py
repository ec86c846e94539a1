# Copyright (c) addp_mm contributors. Apache-2.0.
"""Verify the checksums of a checkpoint in PyTorch's zip format.

``torch.load`` does not compare them: it reads changed bytes as weights.
"""

from __future__ import annotations

import os
import zipfile
from typing import BinaryIO

from addp_mm.checkpoints.errors import CheckpointError

_CHUNK = 1 << 20  # bytes
_OTHER_FILE = 'Copy or download the file again, or use the checkpoint that was saved before it'


def check_archive(file: str | os.PathLike | BinaryIO, name: str = '', remedy: str = _OTHER_FILE) -> None:
    """Read every record of an archive, and compare its CRC-32 with the stored one.

    An archive whose records all have the checksum 0 was saved without checksums
    (``torch.serialization.set_crc32_options(False)``). It is accepted: nothing can be compared.

    Args:
        file: Path, or a binary file at its start, where it is again afterwards.
        name: Name in the error. Defaults to the path.
        remedy: What to do, in the error. Defaults to the use of another file.

    Raises:
        CheckpointError: A record is damaged, or the table of records cannot be read. The message
            names the record.
    """
    record = 'the table of its records'
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if not any(entry.CRC for entry in entries):
                return
            for entry in entries:
                record = f'its record {entry.filename}'
                _read(archive, entry)
    except Exception as error:  # a damaged archive can raise any exception
        reason = 'the checksum differs' if 'CRC' in str(error) else str(error) or type(error).__name__
        raise CheckpointError(f'{name or file} is damaged: {record} cannot be trusted ({reason}). {remedy}.') from error
    finally:
        if not isinstance(file, (str, os.PathLike)):
            file.seek(0)


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    with archive.open(entry) as record:  # compares the checksum at its end
        while record.read(_CHUNK):
            pass
