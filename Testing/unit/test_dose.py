"""DVHs of doses that are known in closed form, the dose differences of the study, and the planning systems' own
tables."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.dose import (
    SAMPLINGS,
    compare_dose,
    make_dvh,
    percent_difference,
    read_dose,
    sample_dose,
    structure_dvh,
    summarise,
)
from soars.dose.sampling import DoseSamples, refined
from soars.errors import InputError
from soars.formats.labelmap import read_label_image
from soars.structures import Geometry, StructureSet
from soars.structures.model import Mask, tight_mask


def _ramp(
    slope: tuple[float, float, float] = (0.5, 0.0, 0.0), offset: float = 10.0, spacing: float = 2.5
) -> sitk.Image:
    """Dose = offset + slope . (x, y, z) mm, on a grid from -20 to 80 mm in each direction."""
    axis = np.arange(-20, 80.1, spacing)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    image = sitk.GetImageFromArray((offset + slope[0] * x + slope[1] * y + slope[2] * z).astype(np.float32))
    image.SetSpacing((spacing,) * 3)
    image.SetOrigin((-20.0,) * 3)
    return image


def _box(low: tuple[int, int, int], size: tuple[int, int, int]) -> Mask:
    return Mask(low, np.ones(size, bool))


def _geometry(
    spacing: tuple[float, float, float] = (1.0, 1.0, 3.0), direction: tuple[float, ...] | None = None
) -> Geometry:
    """Size 60 x 50 x 20, spacing (x, y, z)."""
    return Geometry((60, 50, 20), spacing, (0.0, 0.0, 0.0), direction or (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


# --- closed forms -------------------------------------------------------------------------------------------------


def test_a_linear_ramp_has_a_linear_dvh() -> None:
    """x from 10 to 29 mm at 0.5 Gy/mm above 10 Gy: 15, 15.5 ... 24.5 Gy, all alike often."""
    dvh = make_dvh(sample_dose(_ramp(), _geometry(), _box((2, 3, 10), (4, 5, 20))))
    assert dvh.volume_cc == pytest.approx(4 * 5 * 20 * 3 / 1000)
    assert dvh.mean_gy == pytest.approx((15 + 24.5) / 2, abs=1e-5)
    assert dvh.max_gy == pytest.approx(24.5, abs=1e-5)
    doses = 15 + 0.5 * np.arange(20) - 0.25
    np.testing.assert_allclose(dvh.percent_receiving(doses), 100 - 5 * np.arange(20), atol=1e-9)
    assert dvh.percent_receiving(24.6) == 0 and dvh.percent_receiving(0) == 100
    assert dvh.hottest_percent(50) == pytest.approx(20, abs=1e-5)
    assert dvh.hottest_percent(100) == pytest.approx(15, abs=1e-5)
    # the hottest column of voxels is 20 x 0.003 cc
    assert dvh.hottest_cc(0.06) == pytest.approx(24.5, abs=1e-5)
    assert dvh.hottest_cc(0.0601) == pytest.approx(24.0, abs=1e-5)
    assert dvh.hottest_cc(5.0) == pytest.approx(15, abs=1e-5)  # the lowest: the organ is smaller


def test_a_ramp_along_a_turned_grid_is_read_where_the_voxels_are() -> None:
    direction = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # index x runs along y, y along z, z along x
    geometry = _geometry((1.0, 1.5, 2.0), direction)
    slope = (0.1, 0.2, 0.3)
    mask = _box((3, 4, 5), (6, 7, 8))
    indices = np.stack(np.meshgrid(*[range(a, b) for a, b in zip(mask.start, mask.stop, strict=True)]), -1)
    points = geometry.to_physical(indices.reshape(-1, 3))
    dvh = make_dvh(sample_dose(_ramp(slope), geometry, mask))
    assert dvh.mean_gy == pytest.approx(float((10 + points @ slope).mean()), abs=1e-4)
    assert dvh.max_gy == pytest.approx(float((10 + points @ slope).max()), abs=1e-4)


def test_interpolation_is_itks_on_any_grids() -> None:
    rng = np.random.default_rng(4)
    dose = sitk.GetImageFromArray(rng.uniform(0, 70, (9, 10, 11)).astype(np.float32))
    dose.SetSpacing((2.5, 3.0, 4.0))
    dose.SetDirection((0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    turned = sitk.Euler3DTransform((5.0, -10.0, 12.0), 0.2, -0.3, 0.4)
    geometry = Geometry((20, 18, 16), (1.1, 1.3, 2.0), (-2.0, -22.0, 1.0), turned.GetMatrix())
    mask = tight_mask(rng.random(geometry.shape) < 0.5)
    wanted = sitk.Resample(
        dose, geometry.size, sitk.Transform(), sitk.sitkLinear, geometry.origin, geometry.spacing,
        geometry.direction, 0.0,
    )  # fmt: skip
    samples = sample_dose(dose, geometry, mask)
    inside = sitk.GetArrayFromImage(wanted)[mask.slices][mask.array]
    np.testing.assert_allclose(samples.gy, inside, atol=1e-4)
    assert 0.05 < samples.outside < 0.95


def test_a_cumulative_histogram_holds_all_of_the_organ() -> None:
    dvh = make_dvh(sample_dose(_ramp(), _geometry(), _box((2, 3, 10), (4, 5, 20))))
    doses, percent = dvh.cumulative(0.7)
    assert percent[0] == 100 and percent[-1] == 0 and doses[-1] > dvh.max_gy
    volumes = np.histogram(dvh.gy, doses)[0]
    np.testing.assert_allclose(100 * (1 - np.cumsum(volumes) / len(dvh.gy)), percent[1:], atol=1e-6)
    with pytest.raises(InputError, match="above 0 Gy"):
        dvh.cumulative(0)


def test_oversampling_keeps_the_mean_of_a_ramp_and_the_volume() -> None:
    mask = _box((2, 3, 10), (4, 5, 20))
    whole = make_dvh(sample_dose(_ramp((0.5, 0.1, 0.2)), _geometry(), mask))
    fine = make_dvh(sample_dose(_ramp((0.5, 0.1, 0.2)), _geometry(), mask, "oversampled"))
    assert fine.volume_cc == pytest.approx(whole.volume_cc) and len(fine.gy) == 8 * len(whole.gy)
    assert fine.mean_gy == pytest.approx(whole.mean_gy, abs=1e-5)
    assert fine.max_gy == pytest.approx(whole.max_gy + 0.25 * 0.5 + 0.25 * 0.1 + 0.75 * 0.2, abs=1e-5)


def test_interpolated_slices_end_with_the_last_plane() -> None:
    """A box of n slices loses half a slice at each end: (n - 1) / n of the volume, the same mean."""
    mask = _box((2, 3, 10), (4, 5, 20))
    whole = make_dvh(sample_dose(_ramp((0, 0, 0.5)), _geometry(), mask))
    between = make_dvh(sample_dose(_ramp((0, 0, 0.5)), _geometry(), mask, "interpolated"))
    assert between.volume_cc == pytest.approx(whole.volume_cc * 3 / 4)
    assert between.mean_gy == pytest.approx(whole.mean_gy, abs=1e-5)
    # planes at 6 and 15 mm, sub-slices of 1 mm: from 6.5 to 14.5 mm
    assert between.hottest_percent(100) == pytest.approx(10 + 0.5 * 6.5, abs=1e-5)
    assert between.max_gy == pytest.approx(10 + 0.5 * 14.5, abs=1e-5)


def test_a_shape_between_two_slices_lies_between_them() -> None:
    """Squares of side 20 and 10 mm: the sub-slices' sides shrink evenly."""
    array = np.zeros((2, 30, 30), bool)
    array[0, 5:25, 5:25] = array[1, 10:20, 10:20] = True
    samples = sample_dose(_ramp(), _geometry((1.0, 1.0, 5.0)), tight_mask(array), "interpolated")
    assert 100 * 5 < len(samples.gy) * samples.sample_cc * 1000 < 400 * 5
    assert len(samples.gy) == pytest.approx(5 * (20**2 + 20 * 10 + 10**2) / 3, rel=0.06)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_no_organ_with_a_voxel_has_zero_volume(sampling: str) -> None:
    speck = sample_dose(_ramp(), _geometry(), _box((3, 3, 3), (1, 1, 1)), sampling)
    assert len(speck.gy) * speck.sample_cc == pytest.approx(0.003)
    array = np.zeros((4, 30, 30), bool)
    array[0, 0, 0] = array[1, 20, 20] = array[3, 5, 5] = True  # nothing in common from slice to slice
    apart = sample_dose(_ramp(), _geometry(), tight_mask(array), sampling)
    assert len(apart.gy) * apart.sample_cc > 0


def test_voxels_beyond_the_dose_grid_are_counted_with_nothing() -> None:
    far = Geometry(
        (60, 50, 20), (1.0, 1.0, 3.0), (60.0, 0.0, 0.0)
    )  # the dose ends at 80 mm (and half its voxel)
    samples = sample_dose(_ramp(), far, _box((1, 1, 0), (2, 2, 60)))
    assert samples.outside == pytest.approx(38 / 60)
    assert (samples.gy == 0).mean() == pytest.approx(38 / 60)
    assert make_dvh(samples).volume_cc == pytest.approx(2 * 2 * 60 * 3 / 1000)


def test_an_empty_organ_has_no_dose_and_no_volume() -> None:
    dvh = make_dvh(sample_dose(_ramp(), _geometry(), tight_mask(np.zeros((2, 2, 2), bool))))
    assert dvh.volume_cc == 0
    assert all(math.isnan(v) for v in (dvh.mean_gy, dvh.max_gy, dvh.hottest_cc(0.03), dvh.hottest_percent(5)))
    assert np.isnan(dvh.percent_receiving([1, 2])).all()


def test_an_unknown_sampling_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'nearest'; there are ct, oversampled, interpolated"):
        sample_dose(_ramp(), _geometry(), _box((3, 3, 3), (1, 1, 1)), "nearest")


def test_a_refined_grid_covers_the_same_space() -> None:
    geometry = _geometry((1.0, 1.5, 2.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    fine = refined(geometry, (4, 2, 3))
    low, high = np.array([-0.5, -0.5, -0.5]), np.array(geometry.shape) - 0.5
    np.testing.assert_allclose(fine.to_physical(low), geometry.to_physical(low))
    np.testing.assert_allclose(fine.to_physical(np.array(fine.shape) - 0.5), geometry.to_physical(high))


# --- differences --------------------------------------------------------------------------------------------------


def test_differences_are_in_percent_of_the_reference() -> None:
    geometry = _geometry()
    reference, substitute = StructureSet(geometry), StructureSet(geometry)
    reference.add_mask("Parotid_L", _box((2, 3, 10), (4, 5, 20)))  # 15 to 24.5 Gy
    substitute.add_mask("Parotid_L", _box((2, 3, 14), (4, 5, 20)))  # 2 Gy more
    reference.add_mask("Brainstem", _box((2, 3, 10), (4, 5, 20)))
    reference.add_mask("Lens_L", tight_mask(np.zeros((1, 1, 1), bool)))
    substitute.add_mask("Lens_L", _box((1, 1, 1), (1, 1, 1)))
    found = {d.organ: d for d in compare_dose(_ramp(), reference, substitute, threads=2)}
    parotid = found["Parotid_L"]
    assert parotid.mean_percent == pytest.approx(100 * 2 / 19.75, abs=1e-4)
    assert parotid.max_percent == pytest.approx(100 * 2 / 24.5, abs=1e-4)
    assert parotid.d003cc_percent == pytest.approx(100 * 2 / 24.5, abs=1e-4)
    assert {name: d.state for name, d in found.items()} == {
        "Parotid_L": "compared",
        "Brainstem": "missing",
        "Lens_L": "extra",
    }
    assert math.isnan(found["Brainstem"].mean_percent) and math.isnan(found["Lens_L"].max_percent)
    with pytest.raises(InputError, match="the reference has no Larynx"):
        compare_dose(_ramp(), reference, substitute, organs=["Larynx"])


def test_summary_counts_the_organs_beyond_10_and_30_percent() -> None:
    summary = summarise([5.0, -12.0, 35.0, float("nan"), -40.0])
    assert summary.compared == 4
    assert summary.share_over == (75.0, 50.0)
    assert summary.mean == pytest.approx(-3) and summary.mean_absolute == pytest.approx(23)
    assert summarise([float("nan")]).compared == 0
    assert math.isnan(percent_difference(1.0, 0.0))


# --- planning systems ---------------------------------------------------------------------------------------------

CERR_LENSES = 2.0
ECLIPSE_MEAN_PERCENT = {"optOptic": 6.0, "OrbitRight": 3.0, "BODY": 2.0}
Table = dict[str, tuple[float, np.ndarray, np.ndarray]]


def _table(path: Path) -> Table:
    """Structure -> volume (cc), doses (Gy), percent of the volume that receives at least each."""
    rows: dict[str, list[tuple[float, float, float]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            numbers = (row["header_volume_cc"], row["dose_Gy"], row["volume_pct_ge_dose"])
            rows.setdefault(row["structure"], []).append(tuple(map(float, numbers)))  # type: ignore[arg-type]
    return {name: (v[0][0], *np.array(v)[:, 1:].T) for name, v in rows.items()}


def _rando(shared: Path, table: str) -> tuple[sitk.Image, Table, dict[str, StructureSet]]:
    folder = shared / "data" / "dvh"
    if not folder.is_dir():
        pytest.skip("../shared/data/dvh is not here")
    table_of = _table(folder / f"Ent_{table}_long.csv")
    sets = {}
    for path in sorted(folder.glob("Ent_*.nrrd")):
        name = path.name.removeprefix("Ent_").removesuffix(".nrrd")
        image, _ = read_label_image(path)
        sets[name] = StructureSet(Geometry.of(image))
        sets[name].add(name, sitk.GetArrayViewFromImage(image))
    assert len(sets) == 15 and set(sets) <= set(table_of)
    return read_dose(folder / "EclipseEnt_Dose.nrrd").image, table_of, sets


def _mean_of_table(doses: np.ndarray, percent: np.ndarray) -> float:
    """The mean that a cumulative histogram tells: bins between its doses, their middles."""
    return float(-np.diff(percent) @ (doses[1:] + doses[:-1]) / 2 / 100)


def test_our_convention_is_cerrs(shared: Path) -> None:
    """The table's doses are the upper edges of CERR's bins of 0.2 Gy."""
    dose, table, sets = _rando(shared, "CERR")
    for name, structures in sets.items():
        volume, doses, percent = table[name]
        dvh = structure_dvh(dose, structures, name)
        lens = name.startswith("Lens")
        off = np.abs(dvh.percent_receiving(doses) - percent).max()
        assert off <= (CERR_LENSES if lens else 0.2), f"{name}: V(d) {off:.3f} points off"
        binned = _mean_of_table(doses, dvh.percent_receiving(doses))
        assert binned == pytest.approx(_mean_of_table(doses, percent), abs=0.012), name
        if name != "BODY":  # half of it lies in the first bin, whose middle is not its mean
            assert dvh.mean_gy == pytest.approx(_mean_of_table(doses, percent), abs=0.012), name
        assert dvh.volume_cc == pytest.approx(volume, rel=0.06 if lens else 0.005), name


def test_eclipse_is_met_within_what_its_conventions_allow(shared: Path) -> None:
    dose, table, sets = _rando(shared, "Eclipse")
    for name, structures in sets.items():
        volume, doses, percent = table[name]
        dvh = structure_dvh(dose, structures, name)
        limit = ECLIPSE_MEAN_PERCENT.get(name, 1.2)
        assert dvh.mean_gy == pytest.approx(_mean_of_table(doses, percent), rel=limit / 100), name
        off = np.abs(dvh.percent_receiving(doses) - percent).max()
        assert off <= (3.5 if volume > 5 else 18), f"{name}: V(d) {off:.2f} points off"


def test_interpolated_slices_meet_eclipse(shared: Path) -> None:
    """Every mean within 1 %, and V(d) within 3 points, 6 where an organ is below 5 cc."""
    dose, table, sets = _rando(shared, "Eclipse")
    for name, structures in sets.items():
        volume, doses, percent = table[name]
        dvh = structure_dvh(dose, structures, name, "interpolated")
        assert dvh.mean_gy == pytest.approx(_mean_of_table(doses, percent), rel=0.01), name
        off = np.abs(dvh.percent_receiving(doses) - percent).max()
        assert off <= (3 if volume > 5 else 6), f"{name}: V(d) {off:.2f} points off"


def test_interpolated_slices_are_nearer_to_eclipse_than_whole_ones(shared: Path) -> None:
    dose, table, sets = _rando(shared, "Eclipse")
    nearer = 0
    for name in ("BRSTEM", "GTV", "OrbitLeft", "OrbitRight", "PTV1", "optOptic", "LensLeft"):
        _, doses, percent = table[name]
        off = [
            np.abs(structure_dvh(dose, sets[name], name, s).percent_receiving(doses) - percent).max()
            for s in ("ct", "interpolated")
        ]
        nearer += off[1] < off[0]
    assert nearer == 7


# --- dose from an image -------------------------------------------------------------------------------------------


def test_dose_in_centigray_is_recognised_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "dose.nrrd"
    sitk.WriteImage(_ramp(offset=6000.0), str(path))
    with pytest.raises(InputError, match="if it is in cGy, say --dose-unit cGy"):
        read_dose(path)


def test_samples_may_come_from_anywhere() -> None:
    dvh = make_dvh(DoseSamples(np.array([3.0, 1.0, 2.0], np.float32), 0.5, 0.0))
    assert (dvh.mean_gy, dvh.max_gy, dvh.hottest_cc(1.0), dvh.volume_cc) == (2.0, 3.0, 2.0, 1.5)
