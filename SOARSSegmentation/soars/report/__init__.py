"""What a run leaves to be read: its `record`, the `page`, its `pictures` and the terminal `summary`."""
