"""To and from a DICOM archive: send an RTSTRUCT to it, fetch a CT series from it.

`nodes` keeps what is configured once; `dimse` speaks C-ECHO and C-STORE (pynetdicom), `web` QIDO-RS and WADO-RS (over
`http` with requests, `multipart` takes the answers apart). Both libraries are in the extra ``network`` and are imported
when they are used. An archive is believed no more than a file is: answers have limits of size and pace, and what comes
is compared with what was asked for.
"""
