"""To and from a DICOM archive: send an RTSTRUCT to it, fetch a CT series from it.

`nodes` keeps what is configured once; `dimse` speaks C-ECHO and C-STORE (pynetdicom), `web` QIDO-RS and WADO-RS
(dicomweb-client). Both libraries are in the extra ``network`` and are imported when they are used.
"""
