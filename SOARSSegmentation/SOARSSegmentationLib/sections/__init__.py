"""What each section of the window does: it connects its panel to the run, the session or the review."""
