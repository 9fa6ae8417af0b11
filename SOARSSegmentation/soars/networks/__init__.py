"""Networks built from an architecture description; importing this package does not import torch."""
