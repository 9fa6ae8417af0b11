"""What is odd about contours: one record for every finding, the checks that make them, and the order to look in."""
