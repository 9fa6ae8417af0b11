"""Headers of image files, read and checked by our own code before anything native sees the file.

MetaIO, the reader of .mha and .mhd inside ITK, believes what a header says and can be made to crash by it; NrrdIO takes
a voxel whose size is not given for one of 1 mm. So `metaimage` reads that format altogether, and `nrrd` checks a header
that ITK then reads.
"""
