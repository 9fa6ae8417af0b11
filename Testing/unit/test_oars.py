"""The catalogue: what it holds, and that a name in any spelling means one organ, on the right side, or none."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soars.catalogue import (
    CATALOGUE,
    SETS,
    SOARS42,
    Oar,
    by_stratum,
    label_map,
    label_values,
    resolve,
)
from soars.catalogue.spelling import _find
from soars.errors import InputError, UnknownOrganError

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "reference"

SPELLINGS = [(s, oar) for oar in CATALOGUE.values() for s in (oar.name, oar.label, *oar.aliases)]

STUDY = {
    "anchor": "Brainstem Cerebellum Eye_L Eye_R Bone_Mandible_L Bone_Mandible_R SpinalCord Joint_TM_L Joint_TM_R",
    "mid_level": "BrachialPlex_L BrachialPlex_R Basal_Ganglia_L Basal_Ganglia_R Musc_Constrict_I Musc_Constrict_M "
    "Musc_Constrict_S Epiglottis Esophagus Larynx Cavity_Oral Parotid_L Parotid_R Glnd_Submand_L Glnd_Submand_R "
    "Lobe_Temporal_L Lobe_Temporal_R Glnd_Thyroid_L Glnd_Thyroid_R",
    "small_hard": "Cochlea_L Cochlea_R Hypothalmus Ear_Internal_L Ear_Internal_R Glnd_Lacrimal_L Glnd_Lacrimal_R "
    "Lens_L Lens_R OpticChiasm OpticNrv_L OpticNrv_R Pineal Pituitary",
}
"""The strata of the multi-institution study, under TG-263's names."""


# --- what the table holds ---------------------------------------------------------------------------------------


def test_the_42_are_those_of_the_study_in_the_order_of_the_strata() -> None:
    assert {stratum: {oar.name for oar in by_stratum(stratum)} for stratum in STUDY} == {
        stratum: set(names.split()) for stratum, names in STUDY.items()
    }
    assert [len(by_stratum(stratum)) for stratum in STUDY] == [9, 19, 14]
    assert tuple(CATALOGUE)[:42] == SOARS42 == tuple(o.name for s in STUDY for o in by_stratum(s))
    assert {oar.stratum for oar in tuple(CATALOGUE.values())[42:]} == {"extra"}


def test_an_unknown_stratum_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'mid'.*anchor, mid_level, small_hard, extra"):
        by_stratum("mid")


def test_names_suit_planning_systems() -> None:
    for name in CATALOGUE:
        assert re.fullmatch(r"[A-Z][A-Za-z_]{2,15}", name), name
    lower = Counter(name.lower() for name in CATALOGUE)
    assert lower.most_common(1)[0][1] == 1
    labels = Counter(oar.label for oar in CATALOGUE.values())
    assert labels.most_common(1)[0][1] == 1


def test_sides_agree_with_name_label_code_and_partner() -> None:
    for oar in CATALOGUE.values():
        assert (oar.side is None) == (not re.search(r"(_|_[AP])[LR]$", oar.name)), oar.name
        if oar.side is None:
            assert oar.laterality_code is None and oar.laterality_meaning is None
            continue
        code, letter, other = {"left": ("7771000", "L", "R"), "right": ("24028007", "R", "L")}[oar.side]
        assert oar.name.endswith(letter)
        assert oar.label.lower().startswith(oar.side)
        assert (oar.laterality_code, oar.laterality_meaning) == (code, oar.side.capitalize())
        partner = CATALOGUE[oar.name[:-1] + other]
        same = (
            "stratum",
            "snomed_code",
            "tolerance_mm",
            "usual_volume_cc",
            "single_component",
            "listed_in_tg263",
        )
        assert {a: getattr(oar, a) for a in same} == {a: getattr(partner, a) for a in same}
        if oar.parent and CATALOGUE[oar.parent].side:
            assert CATALOGUE[oar.parent].side == oar.side


def test_parents_and_parts_are_organs_of_the_catalogue() -> None:
    for oar in CATALOGUE.values():
        assert {oar.parent or oar.name, *oar.parts} <= set(CATALOGUE), oar.name
        assert oar.name not in (oar.parent, *oar.parts)
    assert CATALOGUE["Lens_L"].parent == "Eye_L"
    assert CATALOGUE["Cochlea_R"].parent == "Ear_Internal_R"
    assert CATALOGUE["Bone_Mandible"].parts == ("Bone_Mandible_L", "Bone_Mandible_R")


def test_cochlea_and_inner_ear_of_a_side_share_a_heat_map_and_nothing_else_does() -> None:
    groups: dict[str, list[str]] = {}
    for oar in by_stratum("small_hard"):
        groups.setdefault(oar.detection_group, []).append(oar.name)
    shared = {group: names for group, names in groups.items() if names != [group]}
    assert shared == {"Ear_L": ["Cochlea_L", "Ear_Internal_L"], "Ear_R": ["Cochlea_R", "Ear_Internal_R"]}
    assert len(groups) == 12


def test_volumes_and_tolerances_are_positive_and_say_where_they_are_from() -> None:
    for oar in CATALOGUE.values():
        if oar.usual_volume_cc is not None:
            low, high = oar.usual_volume_cc
            assert 0 < low < high / 2, f"{oar.name}: too narrow a range for all adults"
        assert (oar.tolerance_mm is None) == (oar.tolerance_source is None)
        assert oar.tolerance_mm is None or 0.5 < oar.tolerance_mm < 5
    assert all(CATALOGUE[name].usual_volume_cc for name in SOARS42)
    for name, value, verified in (
        ("Brainstem", 2.5, True),
        ("Parotid_L", 2.85, True),
        ("Lens_R", 0.98, False),
    ):
        assert (CATALOGUE[name].tolerance_mm, CATALOGUE[name].tolerance_verified) == (value, verified)
    assert CATALOGUE["OpticChiasm"].tolerance_mm is None


def test_typical_volumes_lie_well_inside_the_usual_ranges() -> None:
    # Rounded textbook values for adults, in cc.
    typical = {"Brainstem": 28, "Eye_L": 7, "Parotid_R": 28, "Lens_L": 0.2, "Bone_Mandible_L": 30}
    typical |= {
        "Glnd_Submand_L": 9,
        "OpticNrv_L": 0.8,
        "Pituitary": 0.5,
        "Cerebellum": 130,
        "Lobe_Temporal_R": 80,
    }
    for name, volume in typical.items():
        low, high = CATALOGUE[name].usual_volume_cc or (0, 0)
        assert 1.5 * low < volume < high / 1.5, name


@pytest.mark.shared
@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference tables are not here")
def test_names_codes_tolerances_and_statuses_are_those_of_the_reference() -> None:
    own_names = {"LarynxCore": "Larynx_Core", "ConstrictorNaris": "Constrict_Naris"}
    with (REFERENCE / "oar_names.csv").open(encoding="utf-8", newline="") as stream:
        rows = {own_names.get(r["our_name"], r["TG263_name"]): r for r in csv.DictReader(stream)}
    assert set(rows) == set(CATALOGUE)
    for name, row in rows.items():
        oar = CATALOGUE[name]
        assert oar.side == (row["laterality"].lower() or None), name
        if row["our_name"] not in own_names:
            assert oar.listed_in_tg263 == row["TG263_status"].startswith("in TG-263"), name
        if name != "Constrict_Naris":  # the reference calls its code a guess
            assert (oar.snomed_code, oar.snomed_meaning) == (row["SNOMED_code"], row["SNOMED_meaning"]), name
            assert oar.snomed_verified == (row["SNOMED_status"] == "VERIFIED"), name
        assert f"{oar.laterality_code} {oar.laterality_meaning}" == (
            row["laterality_modifier"] or "None None"
        )
        assert oar.tolerance_mm == (float(row["Nikolov_tau_mm"]) if row["Nikolov_tau_mm"] else None), name
        assert oar.tolerance_verified == (row["tau_status"] == "VERIFIED"), name
        own = re.sub(r" \(unsplit\)", "", row["our_name"])
        assert resolve(own).name == name


# --- the data sets ----------------------------------------------------------------------------------------------


def test_every_set_is_whole_and_each_of_its_labels_resolves_to_its_organ() -> None:
    sizes = {
        "SOARS42": 42,
        "SOARS-CVPR": 42,
        "HaN-Seg": 30,
        "PDDCA": 9,
        "DeepMind": 21,
        "UaNet": 28,
        "OpenKBP": 7,
    }
    assert {name: len(label_map(name)) for name in SETS} == sizes
    for name in SETS:
        mapping = label_map(name)
        assert len(set(mapping.values())) == len(mapping), f"{name}: two labels for one organ"
        assert {label: resolve(label).name for label in mapping} == mapping


def test_published_integers() -> None:
    assert label_values("OpenKBP") == {
        1: "Brainstem",
        2: "SpinalCord",
        3: "Bone_Mandible",
        4: "Parotid_L",
        5: "Parotid_R",
        6: "Larynx",
        7: "Esophagus",
    }
    han_seg = label_values("HaN-Seg")
    assert sorted(han_seg) == list(range(1, 31))
    assert (han_seg[1], han_seg[20], han_seg[27], han_seg[30]) == (
        "A_Carotid_L",
        "Glnd_Thyroid",
        "Parotid_L",
        "SpinalCord",
    )
    assert label_values("PDDCA") == {}


def test_sets_that_do_not_split_an_organ_name_the_whole_one() -> None:
    assert label_map("OpenKBP")["Mandible"] == label_map("HaN-Seg")["Bone_Mandible"] == "Bone_Mandible"
    assert label_map("UaNet")["Brachial Plexus"] == "BrachialPlexs"
    assert label_map("SOARS-CVPR")["Larynx core"] == "Larynx_Core"


@pytest.mark.parametrize("name", ["UaNet28", "uanet", "DeepMind21", "HaN_Seg", "han-seg30", "SOARS_CVPR"])
def test_sets_are_found_under_their_usual_spellings(name: str) -> None:
    assert label_map(name)


def test_an_unknown_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'TotalSeg'.*SOARS42, .*OpenKBP"):
        label_map("TotalSeg")


# --- resolve ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Parotid_L",
        "LeftParotid",
        "PAROTID L",
        "parotid left",
        "Lt Parotid",
        "Lt. parotid",
        "L_Parotid",
        "L PAROTID GLAND",
        "Parotid-Lt",
        "parotid (L)",
        "Parotid Gland, Left",
        "parotidl",
        "ParotidLeft",
        "PAROTIDS_L",
        "glnd_parotid_lt",
        " Parotid__L ",
        "Left Parotid L",
    ],
)
def test_the_left_parotid_in_many_spellings(text: str) -> None:
    assert resolve(text) is CATALOGUE["Parotid_L"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("OPTIC NERVE RT", "OpticNrv_R"),
        ("Left Optic Nerve", "OpticNrv_L"),
        ("nerve optic r", "OpticNrv_R"),
        ("Submandibular Gland (L)", "Glnd_Submand_L"),
        ("SmgR", "Glnd_Submand_R"),
        ("smg rt", "Glnd_Submand_R"),
        ("TMJL", "Joint_TM_L"),
        ("Temporomandibular Joint Left", "Joint_TM_L"),
        ("spinal-cord", "SpinalCord"),
        ("Cord", "SpinalCord"),
        ("Brain Stem", "Brainstem"),
        ("brain", "Brain"),
        ("oesophagus", "Esophagus"),
        ("Chiasm", "OpticChiasm"),
        ("Optical Chiasm", "OpticChiasm"),
        ("Hypophysis", "Pituitary"),
        ("Hypothalamus", "Hypothalmus"),
        ("inner ear l", "Ear_Internal_L"),
        ("Pharyngeal Constrictor Sup", "Musc_Constrict_S"),
        ("GlotticSupraglotticLarynx", "Larynx"),
        ("LARYNX", "Larynx"),
        ("Larynx core", "Larynx_Core"),
        ("Larynx SG", "Larynx_SG"),
        ("Thyroid", "Glnd_Thyroid"),
        ("Thyroid left", "Glnd_Thyroid_L"),
        ("mandible", "Bone_Mandible"),
        ("Mandible_R", "Bone_Mandible_R"),
        ("Eye-L", "Eye_L"),
        ("EYES RT", "Eye_R"),
        ("Eye_AL", "Eye_AL"),
        ("anterior eyeball left", "Eye_AL"),
        ("Lens-Rt", "Lens_R"),
        ("lenses left", "Lens_L"),
        ("Glottis", "Glottis"),
        ("lips", "Lips"),
    ],
)
def test_spellings_of_planning_systems_and_data_sets(text: str, name: str) -> None:
    assert resolve(text).name == name


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("Parotid", ("Parotid_L", "Parotid_R")),
        ("parotids", ("Parotid_L", "Parotid_R")),
        ("both parotid glands", ("Parotid_L", "Parotid_R")),
        ("Parotid_L_R", ("Parotid_L", "Parotid_R")),
        ("Optic nerve", ("OpticNrv_L", "OpticNrv_R")),
        ("Eye", ("Eye_L", "Eye_R")),
        ("lens", ("Lens_L", "Lens_R")),
        ("TMJ", ("Joint_TM_L", "Joint_TM_R")),
    ],
)
def test_a_paired_organ_without_its_side_is_not_guessed_but_both_are_offered(
    text: str, offered: tuple[str, ...]
) -> None:
    with pytest.raises(UnknownOrganError) as caught:
        resolve(text)
    assert (caught.value.name, caught.value.suggestions) == (text, offered)
    assert f"did you mean {', '.join(offered)}?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Brainstm", "Brainstem"),
        ("Mandibel", "Bone_Mandible"),
        ("Parotis_links_L", "Parotid_L"),
        ("PRV_Brainstem", "Brainstem"),
        ("Parotid_R_PRV05", "Parotid_R"),
        ("Brainstem L", "Brainstem"),
        ("~Lung_L", "Lung_L"),
    ],
)
def test_what_is_not_the_organ_itself_is_refused_with_the_nearest_name_first(text: str, first: str) -> None:
    with pytest.raises(UnknownOrganError) as caught:
        resolve(text)
    assert caught.value.suggestions[0] == first
    side = CATALOGUE[first].side
    assert all(CATALOGUE[name].side in (None, side) for name in caught.value.suggestions if side)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "_",
        "L",
        "left",
        "GTV",
        "PTV70",
        "Parotid_L-PTV",
        "Parotid_L2",
        "腮腺 L",
        "Parotid_L 腮腺",
        "~",
    ],
)
def test_no_organ_is_made_up(text: str) -> None:
    with pytest.raises(UnknownOrganError):
        resolve(text)


def test_every_spelling_in_the_table_means_its_organ() -> None:
    # Building the index raises ValueError where one spelling would mean two organs.
    wrong = [(spelling, oar.name, _find(spelling)) for spelling, oar in SPELLINGS]
    assert [(s, name, found) for s, name, found in wrong if found != name] == []


def test_the_other_side_is_never_meant() -> None:
    for spelling, oar in SPELLINGS:
        if oar.side is None:
            continue
        mirrored = re.sub(
            r"(?i)left|right", lambda m: {"left": "right", "right": "left"}[m[0].lower()], spelling
        )
        if mirrored != spelling:
            assert resolve(mirrored).name == oar.name[:-1] + {"L": "R", "R": "L"}[oar.name[-1]], spelling


@settings(deadline=None)
@given(st.sampled_from(SPELLINGS), st.data())
def test_case_and_separators_do_not_matter(spelling: tuple[str, Oar], data: st.DataObject) -> None:
    text, oar = spelling
    words = re.findall(r"[A-Za-z0-9]+", text)
    separators = st.sampled_from((" ", "_", "-", ".", ", ", "  ", " - ", "/"))
    mixed = words[0]
    for word in words[1:]:
        mixed += data.draw(separators) + word
    upper = data.draw(st.lists(st.booleans(), min_size=len(mixed), max_size=len(mixed)))
    mixed = "".join(c.upper() if up else c.lower() for c, up in zip(mixed, upper, strict=True))
    assert resolve(mixed) is oar


@settings(deadline=None)
@given(st.sampled_from([oar for oar in CATALOGUE.values() if oar.side]), st.data())
def test_the_side_may_stand_anywhere(oar: Oar, data: st.DataObject) -> None:
    assert oar.side
    words = [word for word in re.findall(r"[a-z]+", oar.label.lower()) if word != oar.side]
    side = data.draw(st.sampled_from({"left": ("l", "lt", "left"), "right": ("r", "rt", "right")}[oar.side]))
    words.insert(data.draw(st.integers(0, len(words))), side)
    assert resolve(data.draw(st.sampled_from((" ", "_", "-"))).join(words)) is oar


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=30))
def test_any_text_means_an_organ_or_is_refused(text: str) -> None:
    try:
        found = resolve(text)
    except UnknownOrganError as error:
        assert len(error.suggestions) <= 5 and set(error.suggestions) <= set(CATALOGUE)
    else:
        assert found is CATALOGUE[found.name]


# --- colours ---------------------------------------------------------------------------------------------------


def lab(colour: tuple[int, int, int]) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour, by the formulae of IEC 61966-2-1 and CIE 15."""
    srgb = np.array(colour) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = matrix @ linear / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(
    ("left", "right", "least"),
    [
        *((name, name[:-1] + "R", 15) for name in CATALOGUE if name.endswith("_L")),
        *((name, name[:-1] + "R", 30) for name in ("Bone_Mandible_L", "Glnd_Thyroid_L")),
        ("Eye_AL", "Eye_PL", 30),
        ("Eye_AR", "Eye_PR", 30),
    ],
)
def test_left_and_right_are_told_apart_by_colour_and_halves_that_touch_at_a_glance(left, right, least):
    # 2.3 is just noticeable side by side (Mahy, Color Research and Application 1994)
    assert np.linalg.norm(lab(CATALOGUE[left].colour) - lab(CATALOGUE[right].colour)) >= least


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_lists_and_resolves() -> None:
    def soars(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "soars.cli", *arguments], capture_output=True, text=True)

    listed = soars("catalogue", "list", "--stratum", "anchor")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [o.name for o in by_stratum("anchor")]
    refused = soars("catalogue", "resolve", "lt parotid", "Parotid")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "soars: error: unknown organ 'Parotid'; did you mean Parotid_L, Parotid_R?\n"
