"""Many patients: a batch of CTs from a tree or a list, one result folder each, with a table and a page over all."""
