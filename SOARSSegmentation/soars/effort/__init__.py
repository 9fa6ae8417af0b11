"""The effort log: what a reader did in an editing session, when, and how much each organ changed.

`records` is the file's format, `log` writes and reads files, `recorder` turns what happens into records, `timing`
turns records into times, `review` into each organ's state and category, `change` compares an organ with its proposal.
"""
