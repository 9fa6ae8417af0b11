"""SOARS core: stratified segmentation of organs at risk on head-and-neck CT, without Slicer, Qt or torch at import."""

__version__ = "0.1.0"
