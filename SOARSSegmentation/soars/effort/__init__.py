"""The effort log: what a reader did in an editing session, when, and how much each organ changed.

`records` is the file's format and `chain` links its lines, `writer` writes files under a `lock`, `log` reads them,
`recorder` turns events into records, `timing` turns records into times, `review` into each organ's state and category,
`change` compares an organ with its proposal, `identity` identifies contours and images by their hash.
"""
