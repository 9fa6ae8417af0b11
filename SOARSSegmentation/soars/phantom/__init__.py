"""A synthetic head-and-neck patient with all 42 OARs, so that everything runs and is tested without patient data.

The same seed is the same patient, whatever part of it is scanned::

    phantom = make_phantom(7, spacing_mm=(1, 1, 3))
    phantom.ct, phantom.structures, phantom.anatomy, phantom.dose
    crop = make_phantom(7, spacing_mm=(1, 1, 1), region=organ_boxes(7)["Cochlea_L"])
    write_phantom_dicom(phantom, "folder")
"""

from soars.phantom.export import write_phantom_dicom
from soars.phantom.make import FIELDS_OF_VIEW, Phantom, make_phantom, organ_boxes

__all__ = ["FIELDS_OF_VIEW", "Phantom", "make_phantom", "organ_boxes", "write_phantom_dicom"]
