"""The parameters of drawn pictures: attributes of a person, and what changes between two pictures of that person.

A person is a point in the box of `IDENTITY`. A picture adds `NUISANCE`, `COVERS` and an error on every attribute, so
that no single attribute separates two people. Every change grows with the difficulty, for the same random numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

JITTER = 0.19  # sd of an attribute's error at difficulty 1, as a share of the attribute's range

# fmt: off
# Attribute: (lowest, highest), uniform and independent; lengths in units of half the head's height.
IDENTITY: dict[str, tuple[float, float]] = {
    "head_width": (0.6, 0.86), "jaw_taper": (0.03, 0.45), "temple_taper": (0.0, 0.22),
    "chin_square": (0.0, 0.8),
    "ear_size": (0.13, 0.29), "ear_y": (0.0, 0.16), "ear_out": (0.0, 0.07),
    "skin_dark": (0.0, 0.9), "skin_warm": (-1.0, 1.0), "blush": (0.0, 0.6),
    "eye_x": (0.23, 0.39), "eye_y": (-0.14, 0.1), "eye_wide": (0.09, 0.18), "eye_high": (0.038, 0.11),
    "eye_tilt": (-0.26, 0.26), "lid_skew": (-1.0, 1.0), "lash": (0.010, 0.026), "crease": (0.0, 0.05),
    "bags": (0.0, 0.6), "iris_size": (0.045, 0.07), "iris_light": (0.25, 0.8), "iris_blue": (0.0, 1.0),
    "brow_gap": (0.14, 0.31), "brow_x": (-0.03, 0.06), "brow_long": (0.11, 0.25), "brow_thick": (0.012, 0.07),
    "brow_tilt": (-0.04, 0.05), "brow_arch": (-0.02, 0.07), "brow_dark": (0.1, 0.8),
    "nose_y": (0.22, 0.44), "nose_width": (0.09, 0.23), "bridge_width": (0.04, 0.10),
    "nose_tip": (0.06, 0.13), "nose_depth": (0.10, 0.26), "nostril": (0.0, 1.0),
    "mouth_y": (0.53, 0.71), "mouth_width": (0.16, 0.36), "lip_top": (0.015, 0.08), "lip_low": (0.025, 0.1),
    "lip_bow": (0.0, 0.035), "lip_red": (0.0, 1.0), "mouth_curve": (-0.025, 0.055),
    "beard": (-0.9, 0.9), "moustache": (-0.9, 0.9), "folds": (-0.1, 0.22), "cleft": (-0.3, 0.4),
    "hair_light": (0.10, 0.60), "hair_warm": (0.0, 1.0), "hairline": (-0.84, -0.35), "part": (-0.35, 0.35),
    "sideburn": (-0.3, 0.25), "temple_hair": (0.55, 0.85), "hair_top": (0.04, 0.24),
    "hair_side": (-0.04, 0.26), "hair_length": (-0.2, 1.5), "curl": (0.0, 1.0), "curl_freq": (6.0, 16.0),
    "freckles": (-0.6, 0.9), "freckle_phase": (0.0, 6.0),
    "mole1_u": (-0.55, 0.55), "mole1_v": (0.1, 0.85), "mole1_size": (-0.02, 0.03),
    "mole2_u": (-0.5, 0.5), "mole2_v": (-0.5, 0.5), "mole2_size": (-0.03, 0.025),
}

# Nuisance: (middle, reach at difficulty 1); at difficulty d uniform in middle +- d * reach.
NUISANCE: dict[str, tuple[float, float]] = {
    "yaw": (0.0, 0.36), "pitch": (0.0, 0.18), "roll": (0.0, 0.26),
    "shift_x": (0.0, 0.15), "shift_y": (0.03, 0.13), "scale": (1.0, 0.18),
    "light_x": (0.0, 0.6), "light_y": (-0.05, 0.36), "gain": (1.0, 0.36), "contrast": (1.0, 0.2),
    "cast_r": (1.0, 0.22), "cast_g": (1.0, 0.16), "cast_b": (1.0, 0.24),
    "smile": (0.25, 0.55), "open": (-0.3, 1.0), "squint": (0.1, 0.3), "brow_up": (0.0, 0.05),
    "brow_frown": (0.0, 0.04), "gaze_x": (0.0, 0.08), "gaze_y": (0.0, 0.03),
    "back1_r": (0.55, 0.7), "back1_g": (0.58, 0.7), "back1_b": (0.6, 0.7),
    "back2_r": (0.45, 0.7), "back2_g": (0.47, 0.7), "back2_b": (0.5, 0.7),
    "back_angle": (0.8, 6.3), "back_freq": (8.0, 12.0), "back_phase": (0.0, 6.3), "back_check": (0.5, 1.0),
    "back_hard": (2.0, 3.6), "back_wave": (0.0, 0.9), "back_slope": (0.2, 0.8),
    "cloth_r": (0.4, 0.7), "cloth_g": (0.42, 0.7), "cloth_b": (0.5, 0.7), "collar": (0.5, 1.0),
    "cover_r": (0.45, 0.8), "cover_g": (0.45, 0.8), "cover_b": (0.45, 0.8),
    "hat_y": (-0.52, 0.2), "bar_angle": (0.0, 6.3), "bar_place": (0.1, 1.2), "bar_half": (0.12, 0.1),
    "hand_x": (0.0, 1.0), "hand_y": (0.6, 0.3), "hand_lean": (0.0, 2.0),
    "frame_r": (0.25, 0.5), "frame_g": (0.2, 0.4), "frame_b": (0.2, 0.4), "glasses_width": (0.22, 0.07),
    "glasses_height": (0.18, 0.08), "glasses_square": (0.6, 1.0), "glasses_thick": (0.022, 0.02),
    "glasses_tint": (0.15, 0.4),
    "blur": (0.1, 0.3), "grain": (0.003, 0.014), "quality": (92.0, 44.0),
}
# Covers of a face: a random number in [first, first + share * difficulty) gives it; at most one of hat, bar, hand.
COVERS: dict[str, tuple[float, float]] = {
    "glasses": (0.0, 0.14), "hat": (0.0, 0.05), "bar": (0.33, 0.05), "hand": (0.66, 0.05),
}
# fmt: on

LIMITS = {"blur": (0.0, 1.0), "grain": (0.0, 1.0), "glasses_tint": (0.0, 1.0), "quality": (1.0, 95.0)}


class Picture(NamedTuple):
    """The values behind one picture."""

    values: np.ndarray  # (A,) float64, one for each of `NAMES`
    rng: np.random.Generator  # for random numbers of each pixel


NAMES = (*IDENTITY, *NUISANCE, *COVERS)


def sample_person(seed: int, person: int) -> np.ndarray:
    """Return the attributes of a person as shares of their ranges: (len(IDENTITY),) in [0, 1]."""
    return _rng(seed, person, 0).random(len(IDENTITY))


def sample_picture(seed: int, person: int, image: int, difficulty: float) -> Picture:
    """Return the values of one picture: the person's attributes with their errors, nuisances and covers."""
    rng = _rng(seed, person, image + 1)
    error = np.clip(rng.standard_normal(len(IDENTITY)), -2, 2) * JITTER * difficulty
    low, high = np.array(list(IDENTITY.values())).T
    attributes = low + (high - low) * np.clip(sample_person(seed, person) + error, 0, 1)
    middle, reach = np.array(list(NUISANCE.values())).T
    nuisances = middle + difficulty * reach * (2 * rng.random(len(NUISANCE)) - 1)
    for name, (least, most) in LIMITS.items():
        column = list(NUISANCE).index(name)
        nuisances[column] = np.clip(nuisances[column], least, most)
    first, share = np.array(list(COVERS.values())).T
    luck = rng.random(2)[[0, 1, 1, 1]]  # one number for glasses, one for hat, bar and hand
    covers = (luck >= first) & (luck < first + share * difficulty)
    return Picture(np.concatenate([attributes, nuisances, covers]), rng)


def image_count(seed: int, person: int, least: int, most: int) -> int:
    """Return how many pictures a person has, between `least` and `most`."""
    return int(_rng(seed, person, 0).spawn(1)[0].integers(least, most + 1))


def _rng(seed: int, person: int, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, person, stream]))
