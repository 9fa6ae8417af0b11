"""Running the cascade on a CT (`segment`) and writing a case's files (`case`)."""
