"""The model card of a bundle: its sections, and which of them are required."""

from __future__ import annotations

import re

CARD_SECTIONS = ("Trained on", "Licence", "Figures", "What it cannot do", "Research use only")
"""Headings a model card must have, each with text below; "Figures" also names the command, in backticks."""


def card_sections(card: str) -> dict[str, str]:
    """The sections of a model card, by their headings in lower case."""
    parts = re.split(r"^#{1,6}[ \t]+(.*)$", card, flags=re.MULTILINE)
    return {
        title.strip(" \t#\r").lower(): text.strip()
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def check_card(card: str) -> list[str]:
    """What a model card lacks, one sentence each; empty when it has all of `CARD_SECTIONS`."""
    sections = card_sections(card)
    problems = []
    for title in CARD_SECTIONS:
        text = sections.get(title.lower())
        if text is None:
            problems.append(f"the model card has no section {title!r}")
        elif not text:
            problems.append(f"the model card's section {title!r} is empty")
    if sections.get("figures") and "`" not in sections["figures"]:
        problems.append(
            "the model card's section 'Figures' does not name the command that made them (in backticks)"
        )
    return problems
