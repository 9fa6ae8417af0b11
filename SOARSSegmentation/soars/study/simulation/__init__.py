"""Studies with a known truth: `play` writes the sessions of simulated readers, `make` a whole study on phantoms,
`power` repeats the analysis on many simulated studies to size a real one."""
