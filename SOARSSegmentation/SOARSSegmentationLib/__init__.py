"""The Slicer side: everything that touches slicer, vtk, qt or ctk.

The core, `soars`, does not depend on it. RAS coordinates exist only here; whatever passes to or from the core is LPS.
Importing these modules loads nothing slow and nothing that Slicer does not ship: such imports are made inside the
functions that need them.
"""
