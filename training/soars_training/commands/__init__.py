"""The commands of `soars-train`, one module each: an argument parser and the call."""
