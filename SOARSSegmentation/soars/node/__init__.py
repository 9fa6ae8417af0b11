"""A DICOM node: receives CTs, contours them, and sends the contours on, unattended (`soars serve`).

`serve` starts the parts and stops them. `receive` takes images (C-STORE) and `poll` fetches them (QIDO-RS, WADO-RS);
`collect` decides when a series is complete and which rule it meets; `work` has a process segment it; `deliver` sends
the results. Between them lies only the disk: `spool` holds each case in exactly one folder, named after its state, and
moves it by renaming, so that a node that is killed at any moment goes on where it was. `audit` notes what happened
without saying to whom; `status` shows it.
"""
