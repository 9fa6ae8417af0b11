"""The organs under review: what is known of each, which one is in hand, and what is done to it."""
