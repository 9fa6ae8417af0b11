"""What the checks of a run found about an organ, kept with its segment: in saved scenes and .seg.nrrd files too.

The tag "SOARS.findings" is JSON in base64, as a .seg.nrrd file keeps no tag with a bar in it::

    {"findings": [{"organ": ..., "kind": ..., ...}], "expected_dsc": {"value": 0.82, "low": 0.74, "high": 0.88}}
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from soars.errors import InputError
from soars.findings.finding import ExpectedDsc, Finding
from SOARSSegmentationLib.scene.segments import tag_of

FINDINGS_TAG = "SOARS.findings"


def packed(findings: Iterable[Finding], expected: ExpectedDsc | None) -> str:
    """For the tag."""
    data = {
        "findings": [asdict(finding) for finding in findings],
        "expected_dsc": asdict(expected) if expected is not None else None,
    }
    return base64.b64encode(json.dumps(data).encode("utf-8")).decode("ascii")


def found_of(segment: Any) -> tuple[tuple[Finding, ...], ExpectedDsc | None]:
    """What a segment's tag says; nothing where it has none. `InputError` when the tag is damaged."""
    text = tag_of(segment, FINDINGS_TAG)
    if not text:
        return (), None
    try:
        data = json.loads(base64.b64decode(text, validate=True))
        findings = tuple(Finding.from_dict(finding) for finding in data["findings"])
        expected = data["expected_dsc"]
        return findings, ExpectedDsc(**expected) if expected is not None else None
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise InputError(f"the findings kept of {segment.GetName()} are damaged: {error}") from error
