"""The organs under review: what is known about each, which one is current, and what is done to it."""
