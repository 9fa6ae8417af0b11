"""TotalSegmentator (Wasserthal et al., Radiology: AI 2023) as a system: its own package runs its own models.

`package` holds every call into the installed package; `settings` reads the bundle's tasks and classes;
`system` runs them. Needs the extra ``totalsegmentator``, imported when used. Weights are fetched by TotalSegmentator's
own code, and only by `soars bundle get`.
"""
