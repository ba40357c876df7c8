"""A synthetic cardiac phantom, written as a raw release in the layout of ACDC.

Short-axis stacks as cine MRI shows them: a left ventricle with papillary muscles and trabeculae in its pool, a
right ventricle hugging the septum, atria above the base, fat, lungs, liver and vessels around, at end-diastole
and end-systole, in the five groups of ACDC. Everything is drawn from formulas; no scan of anybody went into it,
and it says so in its headers, in each ``Info.cfg`` and in a README. It is for trying things out and shows
nothing about how a method fares on patients.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ccdcseg.datasets.acdc import LABELS, SYNTHETIC_KEY
from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.errors import UserError
from ccdcseg.files import new_folder, write_text

DESCRIPTION = "synthetic phantom"
"""What the NIfTI headers say."""

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SUBPIXELS = 2
_SUBSLICES = (-0.2, 0.2)  # of the distance between slices
_LOBES = 3

_README = """This is a synthetic phantom: images drawn from formulas by ccdcseg, in the layout of ACDC.
It shows no real person and no real scan. Accuracy on it says nothing about accuracy on patients.
Seed {seed}, {patients} patients. Masks: 0 background, 1 RV, 2 myocardium, 3 LV.
"""


@dataclass(frozen=True)
class _Pathology:
    """Means of one of ACDC's groups; `_Heart` explains the terms."""

    radius_mm: float
    wall_mm: float
    rv_width_mm: float
    contraction: float
    descent_mm: float
    hypertrophy: float = 0.0
    scar: float = 0.0
    flattening: float = 0.0


_PATHOLOGIES = {
    "NOR": _Pathology(radius_mm=25, wall_mm=8, rv_width_mm=27, contraction=0.62, descent_mm=12),
    "DCM": _Pathology(radius_mm=34, wall_mm=7, rv_width_mm=25, contraction=0.88, descent_mm=6),
    "HCM": _Pathology(
        radius_mm=22, wall_mm=12, rv_width_mm=25, contraction=0.5, descent_mm=10, hypertrophy=0.8
    ),
    "MINF": _Pathology(radius_mm=29, wall_mm=8.5, rv_width_mm=26, contraction=0.8, descent_mm=8, scar=0.55),
    "RV": _Pathology(
        radius_mm=22, wall_mm=8, rv_width_mm=45, contraction=0.68, descent_mm=8, flattening=0.25
    ),
}


@dataclass(frozen=True)
class _Heart:
    """Anatomy at one phase. Angles are taken about the LV's axis, from the direction of the septum.

    Args:
        radius_mm: of the LV's endocardium at the base.
        wall_mm: thickness of the LV's wall at the base.
        rv_width_mm: between septum and free wall at the base.
        rv_height: of the RV along the septum, relative to the LV's outer radius.
        rv_length: of the RV, relative to the LV.
        base_mm: depth of the base, counted from the first slice towards the apex.
        apex_mm: depth of the LV's endocardial apex.
        septum_rad: direction from the LV to the RV in the image.
        hypertrophy: relative thickening of the septum.
        scar: relative thinning of the wall at ``scar_rad``.
        scar_rad: where the infarct is.
        flattening: relative inward shift of the septum.
        lobes: relative amplitude of the LV's outline at 2, 3 and 4 cycles a turn.
        rv_lobes: the same of the RV's.
        phases_rad: phases of the lobes.
        papillary_rad: where the papillary muscles are.
        papillary_mm: their radius.
    """

    radius_mm: float
    wall_mm: float
    rv_width_mm: float
    rv_height: float
    rv_length: float
    base_mm: float
    apex_mm: float
    septum_rad: float
    hypertrophy: float
    scar: float
    scar_rad: float
    flattening: float
    lobes: tuple[float, ...]
    rv_lobes: tuple[float, ...]
    phases_rad: tuple[float, ...]
    papillary_rad: tuple[float, float]
    papillary_mm: float

    def depth(self, z_mm: float) -> float:
        """Depth relative to the LV's length: 0 at the base, 1 at the endocardial apex."""
        return (z_mm - self.base_mm) / (self.apex_mm - self.base_mm)

    def endocardium_mm(self, angle: Array, z_mm: float) -> Array:
        """Distance of the LV's endocardium from its axis."""
        return self.radius_mm * _bullet(self.depth(z_mm)) * self._outline(angle)

    def epicardium_mm(self, angle: Array, z_mm: float) -> Array:
        """Distance of the LV's epicardium from its axis."""
        septum, infarct = _bump(angle, 0.0, 0.8), _bump(angle, self.scar_rad, 0.7)
        wall_mm = self.wall_mm * (1 + self.hypertrophy * septum - self.scar * infarct)
        length_mm = self.apex_mm - self.base_mm
        shrunk = _bullet((z_mm - self.base_mm) / (length_mm + 0.7 * self.wall_mm))
        return np.asarray((self.radius_mm * self._outline(angle) + wall_mm) * shrunk, np.float32)

    def rv_inside_mm(self, u_mm: Array, v_mm: Array, z_mm: float) -> Array:
        """How far inside the RV's free wall, roughly; ``u_mm`` points from the LV's axis to the septum."""
        depth = self.depth(z_mm) / self.rv_length
        if depth >= 1:
            return np.full(u_mm.shape, -np.inf, np.float32)
        septum_mm = float(self.epicardium_mm(np.zeros(1, np.float32), z_mm)[0])
        width_mm = self.rv_width_mm * _bullet(depth)
        half_u_mm = 0.4 * septum_mm + width_mm
        half_v_mm = self.rv_height * (0.65 * septum_mm + 0.5 * width_mm)
        u = (u_mm - 0.6 * septum_mm) / half_u_mm
        v = (v_mm + 0.1 * u_mm) / half_v_mm
        outline = _wobble(np.arctan2(v, u), self.rv_lobes, self.phases_rad)
        return np.asarray((outline - np.hypot(u, v)) * (half_u_mm + half_v_mm) / 2, np.float32)

    def contracted(self, contraction: float, descent_mm: float) -> "_Heart":
        """The same heart at end-systole; the wall keeps nearly its volume."""
        radius_mm = self.radius_mm * contraction
        area = (self.radius_mm + self.wall_mm) ** 2 - self.radius_mm**2
        return replace(
            self,
            radius_mm=radius_mm,
            wall_mm=float(np.sqrt(radius_mm**2 + 1.05 * area)) - radius_mm,
            rv_width_mm=self.rv_width_mm * (0.35 + 0.5 * contraction),
            base_mm=self.base_mm + descent_mm,
            papillary_mm=self.papillary_mm * (0.5 + 0.5 * contraction),
        )

    def _outline(self, angle: Array) -> Array:
        wobble = _wobble(angle, self.lobes, self.phases_rad)
        return wobble - self.flattening * _bump(angle, 0.0, 0.7)


@dataclass(frozen=True)
class _Scanner:
    """How a patient is imaged: sampling, the tissues' signal (blood in the LV is 1), and what spoils it."""

    pixels: int
    spacing_mm: float
    slice_mm: float
    slices: int
    shift_mm: NDArray[np.float64]
    rv_blood: float
    muscle: float
    fat: float
    liver: float
    lung: float
    vessel: float
    bias: NDArray[np.float64]
    coil_mm: float
    blur_pixels: float
    noise: float
    scale: float


@dataclass(frozen=True)
class _Thorax:
    """What lies around the heart, in mm from the LV's axis; x grows to the back, y to the feet."""

    front_mm: float
    width_mm: float
    height_mm: float
    fat_mm: float
    muscle_mm: float
    diaphragm_mm: float
    slope: float
    aorta_mm: tuple[float, float, float]
    organs: NDArray[np.float64]
    lobes: tuple[float, ...]
    phases_rad: tuple[float, ...]


def write_phantom(
    target: Path,
    patients: int,
    seed: int,
    field_of_view_mm: float = 240.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a synthetic release in the layout of ACDC, so that `prepare_acdc` reads it.

    The groups NOR, DCM, HCM, MINF and RV take turns. A patient depends on the seed and on its number alone.

    Args:
        target: the new folder; it gets ``training/patientNNN`` and a README that says what this is.
        patients: how many, 1 to 999.
        seed: not negative.
        field_of_view_mm: side of the square images; pixels are 1.5 to 1.9 mm.
        progress: called with the number of patients done and of all patients.

    Returns:
        ``target``.

    Raises:
        UserError: ``target`` exists, or a number is out of range. Nothing is left.
    """
    if not 1 <= patients <= 999 or seed < 0:
        raise UserError(
            f"{patients} patients with seed {seed} cannot be made.",
            "Ask for 1 to 999 patients, seed 0 or more.",
        )
    with new_folder(target) as folder:
        write_text(folder / "README.txt", _README.format(seed=seed, patients=patients))
        for number in range(1, patients + 1):
            _write_patient(folder / "training" / f"patient{number:03d}", number, seed, field_of_view_mm)
            if progress is not None:
                progress(number, patients)
    return target


def _write_patient(folder: Path, number: int, seed: int, field_of_view_mm: float) -> None:
    generator = np.random.default_rng([seed, number])
    group = list(_PATHOLOGIES)[(number - 1) % len(_PATHOLOGIES)]
    pathology = _PATHOLOGIES[group]
    heart = _draw_heart(pathology, generator)
    scanner = _draw_scanner(heart, field_of_view_mm, generator)
    thorax = _draw_thorax(heart, generator)
    contraction = pathology.contraction * generator.uniform(0.93, 1.07)
    systole = heart.contracted(contraction, pathology.descent_mm * generator.uniform(0.7, 1.3))
    frames = {"ED": (1, heart), "ES": (int(generator.integers(8, 14)), systole)}
    for frame, phase in frames.values():
        image, mask = _render(phase, thorax, scanner, generator)
        name = f"{folder.name}_frame{frame:02d}"
        spacing_mm = (scanner.slice_mm, scanner.spacing_mm, scanner.spacing_mm)
        for path, array in ((f"{name}.nii.gz", image), (f"{name}_gt.nii.gz", mask)):
            write_volume(folder / path, Volume(folder / path, array, spacing_mm), DESCRIPTION)
    frame_lines = "".join(f"{phase}: {frame}\n" for phase, (frame, _) in frames.items())
    write_text(folder / "Info.cfg", f"{frame_lines}Group: {group}\nNbFrame: 30\n{SYNTHETIC_KEY}: phantom\n")


def _draw_heart(pathology: _Pathology, generator: Generator) -> _Heart:
    def around(mean: float, relative: float) -> float:
        return mean * float(np.clip(generator.normal(1, relative), 1 - 2 * relative, 1 + 2 * relative))

    base_mm = generator.uniform(-1, 6)
    return _Heart(
        radius_mm=around(pathology.radius_mm, 0.08),
        wall_mm=around(pathology.wall_mm, 0.1),
        rv_width_mm=around(pathology.rv_width_mm, 0.12),
        rv_height=generator.uniform(0.9, 1.2),
        rv_length=generator.uniform(0.78, 0.95),
        base_mm=base_mm,
        apex_mm=base_mm + around(72, 0.08),
        septum_rad=np.pi + generator.uniform(-0.45, 0.45),
        hypertrophy=pathology.hypertrophy * generator.uniform(0.4, 1.3),
        scar=pathology.scar * generator.uniform(0.8, 1.2),
        scar_rad=generator.uniform(-np.pi, np.pi),
        flattening=pathology.flattening * generator.uniform(0.6, 1.3),
        lobes=tuple(generator.normal(0, [0.03, 0.02, 0.01])),
        rv_lobes=tuple(generator.normal(0, [0.05, 0.05, 0.03])),
        phases_rad=tuple(generator.uniform(-np.pi, np.pi, _LOBES)),
        papillary_rad=(generator.uniform(1.7, 2.4), generator.uniform(-2.5, -1.8)),
        papillary_mm=generator.uniform(3.5, 5.5),
    )


def _draw_scanner(heart: _Heart, field_of_view_mm: float, generator: Generator) -> _Scanner:
    slice_mm = float(generator.choice([8.0, 9.0, 10.0]))
    pixels = 8 * round(field_of_view_mm / generator.uniform(1.5, 1.9) / 8)
    slices = int(np.clip(np.floor((heart.apex_mm + heart.wall_mm) / slice_mm), 6, 10))
    return _Scanner(
        pixels=pixels,
        spacing_mm=round(field_of_view_mm / pixels, 4),
        slice_mm=slice_mm,
        slices=slices,
        shift_mm=generator.uniform(-12, 12, 2) + generator.normal(0, 1.2, (slices, 2)),
        rv_blood=generator.uniform(0.72, 0.98),
        muscle=generator.uniform(0.26, 0.5),
        fat=generator.uniform(0.8, 1.3),
        liver=generator.uniform(0.3, 0.6),
        lung=generator.uniform(0.03, 0.12),
        vessel=generator.uniform(0.6, 1.0),
        bias=generator.normal(0, 0.13, 5),
        coil_mm=generator.uniform(90, 180),
        blur_pixels=generator.uniform(0.5, 0.85),
        noise=generator.uniform(0.025, 0.07),
        scale=generator.uniform(150, 700),
    )


def _draw_thorax(heart: _Heart, generator: Generator) -> _Thorax:
    outside_mm = heart.radius_mm + heart.wall_mm
    return _Thorax(
        front_mm=outside_mm + heart.rv_width_mm + generator.uniform(12, 30),
        width_mm=generator.uniform(88, 106),
        height_mm=generator.uniform(135, 165),
        fat_mm=generator.uniform(6, 13),
        muscle_mm=generator.uniform(6, 12),
        diaphragm_mm=outside_mm + generator.uniform(-3, 10),
        slope=generator.uniform(-0.1, 0.3),
        aorta_mm=(
            outside_mm + generator.uniform(14, 30),
            generator.uniform(-5, 22),
            generator.uniform(9, 13),
        ),
        organs=generator.uniform([-60, 45, 8, 8, 0.15, -0.1], [90, 110, 30, 22, 1.2, 0.3], (8, 6)),
        lobes=tuple(generator.normal(0, [0.03, 0.02, 0.015])),
        phases_rad=tuple(generator.uniform(-np.pi, np.pi, _LOBES)),
    )


def _render(
    heart: _Heart, thorax: _Thorax, scanner: _Scanner, generator: Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Image and mask of one phase, shape (z, y, x)."""
    slices = [_render_slice(index, heart, thorax, scanner, generator) for index in range(scanner.slices)]
    images, masks = zip(*slices, strict=True)
    return np.stack(images), np.stack(masks)


def _render_slice(
    index: int, heart: _Heart, thorax: _Thorax, scanner: _Scanner, generator: Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Signal and labels of the subpixels, averaged over the voxel; then blur, bias field and noise."""
    count, step_mm = scanner.pixels * _SUBPIXELS, scanner.spacing_mm / _SUBPIXELS
    axis_mm = ((np.arange(count) - (count - 1) / 2) * step_mm).astype(np.float32)
    shift_mm = scanner.shift_mm[index].astype(np.float32)
    x_mm, y_mm = np.meshgrid(axis_mm - shift_mm[0], axis_mm - shift_mm[1])
    grain = _smooth_noise(generator, count, 1.3 / step_mm)
    surroundings = _paint_thorax(thorax, scanner, x_mm, y_mm, grain)
    signal = np.zeros((scanner.pixels, scanner.pixels), np.float32)
    shares = np.zeros((len(LABELS) + 1, scanner.pixels, scanner.pixels), np.float32)
    for offset in _SUBSLICES:
        painted = surroundings.copy()
        labels = _paint_heart(
            painted, heart, scanner, x_mm, y_mm, (index + 0.5 + offset) * scanner.slice_mm, grain
        )
        signal += _block_mean(painted) / len(_SUBSLICES)
        for label in range(len(shares)):
            shares[label] += _block_mean(labels == label)
    return _measured(signal, scanner, generator), shares.argmax(0).astype(np.uint8)


def _paint_thorax(thorax: _Thorax, scanner: _Scanner, x_mm: Array, y_mm: Array, grain: Array) -> Array:
    middle_mm = thorax.width_mm - thorax.front_mm
    x, y = (x_mm - middle_mm) / thorax.width_mm, (y_mm - 20) / thorax.height_mm
    angle = np.arctan2(y, x)
    inside_mm = (_wobble(angle, thorax.lobes, thorax.phases_rad) - np.hypot(x, y)) * thorax.width_mm
    signal = np.where(inside_mm > 0, scanner.fat, 0.01).astype(np.float32)
    wall = inside_mm > thorax.fat_mm
    signal[wall] = 0.8 * scanner.muscle
    ribs = np.cos(15 * angle + 2 * np.cos(2 * angle + thorax.phases_rad[0])) > 0.5
    signal[wall & ribs & (abs(inside_mm - thorax.fat_mm - thorax.muscle_mm / 2) < 3)] = 0.5 * scanner.fat
    cavity = inside_mm > thorax.fat_mm + thorax.muscle_mm
    signal[cavity] = scanner.lung
    signal[cavity & (grain > 2.1)] = scanner.vessel
    below = cavity & (y_mm > thorax.diaphragm_mm + thorax.slope * x_mm + (x_mm / 30) ** 2)
    signal[below] = _abdomen(thorax, scanner, x_mm[below], y_mm[below], grain[below])
    x_aorta, y_aorta, radius_mm = thorax.aorta_mm
    from_aorta_mm = np.hypot(x_mm - x_aorta, y_mm - y_aorta)
    signal[from_aorta_mm < radius_mm + 2] = scanner.muscle
    signal[from_aorta_mm < radius_mm] = 1.0
    return signal


def _abdomen(thorax: _Thorax, scanner: _Scanner, x_mm: Array, y_mm: Array, grain: Array) -> Array:
    """The liver with its vessels, and organs wrapped in fat, some of them mottled as bowel is."""
    signal = np.where(grain > 1.6, 1.4 * scanner.liver, scanner.liver).astype(np.float32)
    for x, y, width_mm, height_mm, tissue, mottling in thorax.organs.astype(np.float32):
        from_middle = np.hypot((x_mm - x) / width_mm, (y_mm - y) / height_mm)
        signal[from_middle < 1.15] = 0.7 * scanner.fat
        organ = from_middle < 1
        signal[organ] = tissue * (1 + mottling * grain[organ])
    return signal


def _paint_heart(
    signal: Array, heart: _Heart, scanner: _Scanner, x_mm: Array, y_mm: Array, z_mm: float, grain: Array
) -> NDArray[np.uint8]:
    """Paint the heart over ``signal`` and return the labels."""
    labels = np.zeros(signal.shape, np.uint8)
    angle = np.arctan2(y_mm, x_mm) - np.float32(heart.septum_rad)
    radius_mm = np.hypot(x_mm, y_mm)
    u_mm, v_mm = radius_mm * np.cos(angle), radius_mm * np.sin(angle)
    if z_mm < heart.base_mm:
        _paint_atria(signal, heart, scanner, u_mm, v_mm)
        return labels
    endocardium_mm, epicardium_mm = heart.endocardium_mm(angle, z_mm), heart.epicardium_mm(angle, z_mm)
    outside = radius_mm >= epicardium_mm
    fat_mm = 5 * _wobble(angle, (0.6, 0.5, 0.4), heart.phases_rad)
    inside_mm = heart.rv_inside_mm(u_mm, v_mm, z_mm)
    sac = (radius_mm < epicardium_mm + fat_mm) | (inside_mm > -2.5 - fat_mm)
    signal[sac & (epicardium_mm > 0)] = 0.75 * scanner.fat
    signal[inside_mm > -2.5] = scanner.muscle
    rv = outside & (inside_mm > 0)
    signal[rv] = scanner.rv_blood
    signal[rv & (inside_mm < 8) & (grain > 0.6)] = 0.4 * scanner.rv_blood + 0.6 * scanner.muscle
    signal[~outside] = scanner.muscle
    lv = radius_mm < endocardium_mm
    signal[lv] = 1.0
    signal[lv & _muscle_in_pool(heart, endocardium_mm, u_mm, v_mm, z_mm, grain)] = scanner.muscle
    labels[rv], labels[~outside], labels[lv] = LABELS["RV"], LABELS["Myo"], LABELS["LV"]
    return labels


def _muscle_in_pool(
    heart: _Heart, endocardium_mm: Array, u_mm: Array, v_mm: Array, z_mm: float, grain: Array
) -> Mask:
    """Papillary muscles at middle depth and trabeculae towards the apex; they belong to the LV's label."""
    depth = heart.depth(z_mm)
    rough = np.hypot(u_mm, v_mm) > (0.95 - 0.35 * depth) * endocardium_mm
    inside = rough & (grain > 1.1 - 0.9 * depth)
    if 0.25 < depth < 0.85:
        for angle in heart.papillary_rad:
            middle_mm = 0.7 * heart.radius_mm * _bullet(depth)
            u, v = middle_mm * np.cos(angle), middle_mm * np.sin(angle)
            inside |= np.hypot(u_mm - u, v_mm - v) < heart.papillary_mm * (1 + 0.15 * grain)
    return np.asarray(inside)


def _paint_atria(signal: Array, heart: _Heart, scanner: _Scanner, u_mm: Array, v_mm: Array) -> None:
    """Left and right atrium, outflow tract and aortic root: as bright as the ventricles, and no label."""
    size_mm = 25 + 0.3 * (heart.radius_mm - 25)
    chambers = (
        (1.35, 0.95, 0.85, 0.6, scanner.rv_blood),
        (1.4, -0.45, 0.95, 0.8, scanner.rv_blood),
        (-0.25, -0.2, 1.05, 0.9, 0.95),
        (0.55, 0.45, 0.55, 0.55, 1.0),
    )
    signal[np.hypot(u_mm - 0.5 * size_mm, v_mm) < 1.7 * size_mm] = 0.8 * scanner.fat
    for u, v, width, height, blood in chambers:
        from_middle = np.hypot((u_mm / size_mm - u) / width, (v_mm / size_mm - v) / height)
        signal[from_middle < 1.07] = scanner.muscle
        signal[from_middle < 1] = blood


def _measured(signal: Array, scanner: _Scanner, generator: Generator) -> NDArray[np.int16]:
    """What the scanner makes of the signal: uneven tissue, blur, coil sensitivity, Rician noise, 16 bits."""
    count = scanner.pixels
    coarse, fine = _smooth_noise(generator, count, 6.0), _smooth_noise(generator, count, 1.0)
    uneven = signal * (1 + 0.07 * coarse + 0.06 * fine)
    blurred = gaussian_filter(uneven, scanner.blur_pixels)
    x, y = np.meshgrid(np.linspace(-1, 1, count), np.linspace(-1, 1, count))
    bias = np.tensordot(scanner.bias, np.stack([x, y, x * y, x**2, y**2]), 1)
    coil = 0.6 + np.exp(-(x + 1) * count * scanner.spacing_mm / 2 / scanner.coil_mm)
    noise = scanner.noise * gaussian_filter(generator.normal(0, 1.6, (2, count, count)), (0, 0.45, 0.45))
    magnitude = np.hypot(blurred * np.exp(bias) * coil + noise[0], noise[1])
    return np.asarray(np.round(scanner.scale * magnitude), dtype=np.int16)


def _bullet(depth: float) -> float:
    """Radius of a ventricle relative to its base's: 1 there, 0 at the apex."""
    return float(np.sqrt(1 - np.clip(depth, 0, 1) ** 2.4))


def _bump(angle: Array, middle_rad: float, width_rad: float) -> Array:
    """1 at an angle, falling off on both sides of it."""
    return np.asarray(np.exp((np.cos(angle - np.float32(middle_rad)) - 1) / width_rad**2), np.float32)


def _wobble(angle: Array, amplitudes: tuple[float, ...], phases_rad: tuple[float, ...]) -> Array:
    waves = zip(amplitudes, phases_rad, strict=True)
    return np.asarray(
        1
        + sum(
            np.float32(size) * np.cos(cycles * angle + np.float32(phase))
            for cycles, (size, phase) in enumerate(waves, 2)
        ),
        dtype=np.float32,
    )


def _smooth_noise(generator: Generator, count: int, width: float) -> Array:
    """Noise of unit variance, shape (count, count), smooth over ``width`` pixels."""
    noise = gaussian_filter(generator.standard_normal((count, count), np.float32), width)
    return np.asarray(noise / noise.std())


def _block_mean(array: NDArray[Any]) -> Array:
    """Mean over the subpixels of each pixel."""
    places = [
        array[row::_SUBPIXELS, column::_SUBPIXELS]
        for row in range(_SUBPIXELS)
        for column in range(_SUBPIXELS)
    ]
    return np.asarray(np.mean(places, axis=0), np.float32)
