"""What each section of the window does: its panel on one side, the run, the session, the review on the other."""
