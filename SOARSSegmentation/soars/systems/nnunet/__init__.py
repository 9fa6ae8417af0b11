"""nnU-Net v2 models (Isensee et al., Nature Methods 2021) as bundles.

`model_folder` reads the folder of a trained nnU-Net, `labels` says which organ each of its labels is, `importing` makes
a bundle of both, and `system` runs it through nnU-Net's own predictor. Needs the extra ``nnunet``, imported when used.
"""
