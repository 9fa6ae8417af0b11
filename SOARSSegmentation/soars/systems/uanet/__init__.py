"""UaNet: organs are detected as boxes, and drawn inside their boxes (Tang et al., Nature Machine Intelligence 2019)."""
