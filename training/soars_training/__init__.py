"""Training, evaluation and export of SOARS model bundles, with torch."""

import soars  # noqa: F401  before other packages, since it switches onnxruntime's telemetry off
