"""Training, evaluation and export of SOARS model bundles (torch and Lightning)."""
