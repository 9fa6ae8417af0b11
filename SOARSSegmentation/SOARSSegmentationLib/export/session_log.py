"""The logs of a session, with the proposal and the result beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

from soars.errors import InputError
from SOARSSegmentationLib.export.exported import Exported
from SOARSSegmentationLib.translation import _


def export_log(session_folder: Path, folder: Path) -> Exported:
    """Copy a session's logs, and the proposal and the result beside them, into a folder, all or none.

    `InputError` when there is no log, the folder holds such files already, or cannot be written.
    """
    from soars.effort.log import PROPOSAL_FILE, RESULT_FILE
    from soars.files import staged_folder

    logs = logs_of(session_folder)
    if not logs:
        raise InputError(f"there is no effort log in {session_folder}")
    files = [
        *logs,
        *(
            session_folder / name
            for name in (PROPOSAL_FILE, RESULT_FILE)
            if (session_folder / name).is_file()
        ),
    ]
    with staged_folder(Path(folder), [file.name for file in files]) as staging:
        for file in files:
            try:
                shutil.copyfile(file, staging / file.name)
            except OSError as error:
                raise InputError(f"{file.name} cannot be copied: {error.strerror or error}") from error
    what = _("{count} files of the session: {path}").format(count=len(files), path=folder)
    return Exported(Path(folder), what)


def logs_of(session_folder: Path) -> list[Path]:
    from soars.effort.log import session_logs

    return session_logs(Path(session_folder))
