"""What a study found: `effort` and `minutes` from the logs, `agreement` and `doses` from the contours, `prediction`
of the one by the other, as tables (`table`), figures and one page (`page`); `summary` puts them together."""
