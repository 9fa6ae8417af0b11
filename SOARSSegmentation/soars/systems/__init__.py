"""The models that can segment organs on a CT, behind one small interface (`interface.System`).

`registry.system_of` says which one a bundle is: the stratified cascade, an nnU-Net, UaNet, DeepMind's U-Net,
TotalSegmentator, or a composite of several bundles. `soars.run.segment` knows nothing more about them.
"""
