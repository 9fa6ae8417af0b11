"""A phantom as DICOM: the CT series and its dose."""

from __future__ import annotations

import os
from pathlib import Path

from soars.phantom.make import Phantom


def write_phantom_dicom(phantom: Phantom, folder: str | os.PathLike[str]) -> Path:
    """Write `folder/ct/*.dcm` (CT series) and `folder/rtdose.dcm` and return the folder of the CT series.

    The folder is made; the patient's name says that it is a phantom. Raises `InputError` where the writers do.
    """
    from soars.ct.series import read_series
    from soars.dicom.write import write_ct_series, write_rtdose

    root = Path(folder)
    ct_folder = root / "ct"
    seed = int(str(phantom.description["seed"]))
    write_ct_series(
        phantom.ct, ct_folder, patient_id=f"PHANTOM{seed}", patient_name=f"Phantom^{seed}", seed=seed
    )
    _, series, _ = read_series(ct_folder)
    write_rtdose(phantom.dose, root / "rtdose.dcm", series)
    return ct_folder
