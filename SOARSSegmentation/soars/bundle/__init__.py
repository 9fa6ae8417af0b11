"""Model bundles: the `manifest`, and the `store` that finds, checks, imports and writes them."""
