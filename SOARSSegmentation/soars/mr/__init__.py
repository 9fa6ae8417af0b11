"""An MR beside the CT: read, checked, and rigidly registered to it."""
