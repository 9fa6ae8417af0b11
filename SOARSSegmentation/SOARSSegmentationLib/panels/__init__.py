"""The widgets of the module's window: what is shown and asked; what is done lies elsewhere."""
