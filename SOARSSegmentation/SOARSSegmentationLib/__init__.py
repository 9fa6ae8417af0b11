"""The Slicer side: everything that touches slicer, vtk, qt or ctk.

The core, `soars`, knows nothing of it. RAS coordinates exist only here; what goes to the core and comes from it is LPS.
Importing these modules loads nothing that is slow or that Slicer does not ship: such imports stand in the functions
that need them.
"""
