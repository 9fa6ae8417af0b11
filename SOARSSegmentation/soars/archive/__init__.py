"""To and from a DICOM archive: send an RTSTRUCT to it, fetch a CT series from it.

`nodes` keeps the configured archives; `dimse` speaks C-ECHO and C-STORE (pynetdicom), `web` QIDO-RS and WADO-RS (over
`http` with requests; `multipart` parses the responses). Both libraries are in the extra ``network`` and are imported
when they are used. An archive is trusted no more than a file: responses are limited in size and must keep a minimum
speed, and what arrives is compared with what was requested.
"""
