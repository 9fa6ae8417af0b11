"""Training, evaluation and export of SOARS model bundles (torch and Lightning)."""

import soars  # noqa: F401  before other packages, since it switches onnxruntime's telemetry off
