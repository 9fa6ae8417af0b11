"""The effort log: what a reader did in an editing session, when, and how much each organ changed.

`records` is the file's format and `chain` what ties its lines together, `writer` writes files under a `lock`, `log`
reads them, `recorder` turns what happens into records, `timing` turns records into times, `review` into each organ's
state and category, `change` compares an organ with its proposal, `identity` names contours and images by their hash.
"""
