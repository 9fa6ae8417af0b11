"""The widgets of the module's window: what is shown and asked, nothing of what is done."""
