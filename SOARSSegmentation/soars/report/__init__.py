"""What a run leaves to read: its `record`, the `page`, its `pictures` and the terminal `summary`."""
