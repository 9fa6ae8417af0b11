"""Several bundles as one: for each organ an ordered list of sources.

`plan` reads the composite's YAML file, `system` runs the sources and puts their organs together, `overlaps` settles
voxels that two sources claim.
"""
