"""From cases as they come to a training cache: sources, splits, what is left out and why."""
