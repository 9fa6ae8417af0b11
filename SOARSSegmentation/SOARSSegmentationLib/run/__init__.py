"""Running `soars segment` in a child process, and loading what it wrote."""
