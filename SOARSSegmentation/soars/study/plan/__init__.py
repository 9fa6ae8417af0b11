"""The lead's side of a study: the study file (`model`), who reads what when (`assign`), what readers are given
(`prepare`, `issue`), and what is written down beforehand (`registration`)."""
