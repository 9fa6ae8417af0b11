"""The stratified cascade: anchors, mid-level organs guided by them, detection and segmentation of the small ones.

`soars.run.segment.segment` is the public way in. Nothing here imports torch or onnxruntime until a network is opened.
"""
