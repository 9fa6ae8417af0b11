"""A study's worklist, worked through case by case: `desk` finds, loads and checks the next case, `loading` reads its
CT."""
