"""SOARS core: stratified segmentation of organs at risk on head-and-neck CT, without Slicer, Qt or torch at import."""

import os

__version__ = "0.1.0"

# onnxruntime keeps an identifier of the computer and reports to its vendor from the moment it is imported; other
# packages import it too, so this comes before all of them. See docs/security.md.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
