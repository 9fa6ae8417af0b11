"""Training windows cut from cached cases, with augmentation."""
