"""Headers of image files, read and checked by our own code before anything native sees the file.

MetaIO, ITK's reader of .mha and .mhd, trusts the header and can be made to crash by it; NrrdIO assumes 1 mm where the
voxel size is missing. So `metaimage` reads that format completely, and `nrrd` checks a header that ITK then reads.
"""
