"""Features of a drawn face: eyes, brows, nose, mouth, beard and marks, at (u, v) on the turned head."""

from __future__ import annotations

import numpy as np

from facenet.data.drawn.masks import Frame, Params, bump, paint, skin_colour, smooth, soft


def paint_features(picture: np.ndarray, p: Params, f: Frame) -> None:
    """Paint everything between hairline and chin onto the skin, in place."""
    inside = soft((f.radius - 0.99) * 0.8, f.px)
    skin = skin_colour(p)
    paint(picture, inside * np.clip(_shadows(p, f), 0, 0.8), skin * 0.35)
    paint(picture, inside * _blush(p, f), skin * np.array([1.0, 0.62, 0.6], np.float32)[:, None, None])
    paint(picture, inside * _marks(p, f), skin * np.array([0.52, 0.40, 0.34], np.float32)[:, None, None])
    _paint_beard(picture, p, f, inside)
    _paint_mouth(picture, p, f, inside)
    _paint_nose(picture, p, f, inside)
    _paint_eyes(picture, p, f, inside)
    _paint_brows(picture, p, f, inside)


def _shadows(p: Params, f: Frame) -> np.ndarray:
    """Eye sockets, bags under the eyes, folds beside the mouth, the chin's cleft, the shade under the lip."""
    a = np.abs(f.u)
    socket = 0.22 * bump(np.square((a - p["eye_x"]) / 0.27) + np.square((f.v - p["eye_y"] + 0.06) / 0.2))
    bag = np.square((a - p["eye_x"]) / 0.16) + np.square((f.v - p["eye_y"] - p["eye_high"] - 0.07) / 0.05)
    fold_at = p["nose_width"] + 0.06 + 0.32 * (f.v - p["nose_y"])
    between = smooth(f.v, p["nose_y"] - 0.06, p["nose_y"] + 0.02)
    between = between * smooth(-f.v, -p["mouth_y"] - 0.08, -p["mouth_y"])
    fold = bump(np.square((a - fold_at) / 0.065)) * between * (p["folds"] + 0.2 * np.maximum(p["smile"], 0))
    under = np.square(f.u / 0.16) + np.square((f.v - p["mouth_y"] - p["lip_low"] - 0.075) / 0.05)
    cleft = np.square(f.u / 0.03) + np.square((f.v - 0.88) / 0.07)
    spots = 0.8 * p["bags"] * bump(bag) + 0.3 * bump(under) + p["cleft"] * bump(cleft)
    mask: np.ndarray = socket + fold + spots
    return mask


def _blush(p: Params, f: Frame) -> np.ndarray:
    spot = np.square((np.abs(f.u) - 0.42) / 0.24) + np.square((f.v - 0.34) / 0.2)
    mask: np.ndarray = p["blush"] * bump(spot)
    return mask


def _marks(p: Params, f: Frame) -> np.ndarray:
    """Freckles (a fixed irregular lattice of the person) and two moles."""
    cheeks = bump(np.square((np.abs(f.u) - 0.3) / 0.38) + np.square((f.v - 0.3) / 0.3))
    across = np.sin(43 * f.u + 3 * np.sin(19 * f.v + p["freckle_phase"]))
    down = np.sin(47 * f.v + 3 * np.sin(23 * f.u - p["freckle_phase"]))
    marks: np.ndarray = np.maximum(p["freckles"], 0) * cheeks * smooth(across * down, 0.45, 0.9)
    for name in ("mole1", "mole2"):
        away = np.square(f.u - p[f"{name}_u"]) + np.square(f.v - p[f"{name}_v"])
        marks = np.maximum(marks, 0.85 * soft(np.sqrt(away) - p[f"{name}_size"], f.px * 1.5))
    return marks


def _paint_beard(picture: np.ndarray, p: Params, f: Frame, inside: np.ndarray) -> None:
    """Stubble to full beard on the jaw, and a moustache."""
    away = np.sqrt(np.square(f.u / (0.62 * p["head_width"])) + np.square((f.v - 0.42) / 0.42))
    jaw = smooth(away, 0.8, 1.1) * smooth(f.v, 0.22, 0.5)
    lip = np.square(f.u / (p["mouth_width"] + 0.05)) + np.square(
        (f.v - 0.5 * (p["nose_y"] + p["mouth_y"]) - 0.06) / 0.09
    )
    rough = 0.85 + 0.15 * np.sin(61 * f.u + 3 * np.sin(40 * f.v)) * np.sin(57 * f.v)
    mask = np.maximum(np.maximum(p["beard"], 0) * jaw, np.maximum(p["moustache"], 0) * bump(lip * 0.6))
    tone = np.stack([p["hair_light"] * 0.8, p["hair_light"] * 0.68, p["hair_light"] * 0.58], 1)
    paint(picture, inside * mask * rough, tone)


def _paint_nose(picture: np.ndarray, p: Params, f: Frame, inside: np.ndarray) -> None:
    """Bridge shaded away from the light, tip, wings and nostrils; it stands out from the face."""
    skin = skin_colour(p)
    rise = smooth(f.v, p["eye_y"] - 0.1, p["nose_y"]) * p["nose_depth"]
    u = f.u - rise * np.sin(p["yaw"])
    v = f.v - p["nose_y"] - 0.15 * np.sin(p["pitch"])
    a = np.abs(u)
    reach = smooth(f.v, p["eye_y"] - 0.15, p["eye_y"] + 0.3) * soft(v, f.px * 2)
    wide = p["bridge_width"] + (p["nose_width"] - p["bridge_width"]) * 0.55 * smooth(v, -0.35, 0.0)
    wall = bump(np.square((a - wide) / 0.07)) * reach * (0.24 + 0.28 * np.sign(u) * -p["light_x"])
    paint(picture, inside * np.clip(wall, 0, 0.7), skin * 0.45)
    gleam = bump(np.square(u / (0.5 * p["bridge_width"] + 0.02))) * reach * 0.28
    tip = bump((np.square(u) + np.square(v + 0.05)) / np.square(p["nose_tip"])) * 0.35
    paint(picture, inside * np.maximum(gleam, tip), np.minimum(skin * 1.25, 1.0))
    wing = np.sqrt(np.square((a - p["nose_width"] * 0.62) / (p["nose_width"] * 0.45)) + np.square(v / 0.085))
    outer = soft(np.abs(wing - 1) * 0.08 - 0.012, f.px) * 0.6
    outer = outer * smooth(a, p["nose_width"] * 0.7, p["nose_width"])
    under = bump(np.square(u / p["nose_width"]) + np.square((v - 0.05) / 0.05)) * 0.45
    hole = np.square((v - 0.03) / (0.018 + 0.02 * p["nostril"]))
    hole = hole + np.square((a - p["nose_width"] * 0.48) / 0.05)
    paint(picture, inside * np.maximum(outer, under), skin * 0.45)
    paint(picture, inside * bump(hole * 0.5) * 0.9, skin * 0.2)


def _paint_mouth(picture: np.ndarray, p: Params, f: Frame, inside: np.ndarray) -> None:
    """Two lips around a line that smiles or an opening that may show teeth."""
    half = p["mouth_width"] * (1 + 0.18 * np.maximum(p["smile"], 0) - 0.25 * p["open"])
    along = np.clip(np.square(f.u / half), 0, 1)
    taper = 1 - along
    v = f.v - p["mouth_y"] + p["mouth_curve"] * along + 0.10 * p["smile"] * (along - 0.4)
    gap = 0.16 * np.maximum(p["open"], 0) * taper
    bow = p["lip_bow"] * bump(np.square(f.u / 0.06))
    top = gap * 0.4 + p["lip_top"] * np.sqrt(taper) - bow
    low = gap * 0.8 + p["lip_low"] * np.sqrt(taper)
    wide = soft(np.abs(f.u) - half, f.px)
    lips = wide * soft(-v - top, f.px) * soft(v - low, f.px)
    skin, red = skin_colour(p), p["lip_red"]
    tint = np.stack([0.94 - 0.1 * red, 0.66 - 0.28 * red, 0.66 - 0.24 * red], 1)
    shade = (0.92 + 0.22 * smooth(v, 0.0, p["lip_low"]) - 0.1 * smooth(-v, 0.0, 0.06))[:, None]
    paint(picture, inside * lips, skin * tint * shade)
    hollow = wide * soft(-v - gap * 0.4, f.px) * soft(v - gap * 0.8, f.px) * smooth(gap, 0.0, 0.02)
    paint(picture, inside * hollow, np.array([0.22, 0.07, 0.07], np.float32)[:, None, None])
    teeth = hollow * soft(v + gap * 0.4 - 0.05, f.px) * smooth(p["smile"], -0.1, 0.3)
    paint(picture, inside * teeth, np.array([0.93, 0.91, 0.86], np.float32)[:, None, None])
    line = wide * bump(np.square(v / 0.028)) * (1 - smooth(gap, 0.0, 0.03)) * 0.75
    paint(picture, inside * line, skin * 0.25)


def _paint_eyes(picture: np.ndarray, p: Params, f: Frame, inside: np.ndarray) -> None:
    """Almond of white with iris, pupil and gleam, under a lid with a lash line and a crease."""
    skin, side = skin_colour(p), np.sign(f.u)
    du, dv = np.abs(f.u) - p["eye_x"], f.v - p["eye_y"]
    x, y = du + p["eye_tilt"] * dv, dv + p["eye_tilt"] * du  # outer corner up for a positive tilt
    bow = np.clip(1 - np.square(x / p["eye_wide"]), 0, 1)
    high = p["eye_high"] * (1 - 0.75 * p["squint"])
    top, low = high * bow * (1 + 0.4 * p["lid_skew"] * x / p["eye_wide"]), 0.62 * high * bow
    wide = soft(np.abs(x) - p["eye_wide"], f.px)
    opening = inside * wide * soft(-y - top, f.px) * soft(y - low, f.px)
    white = 0.93 - 0.3 * bump(np.square((y + top) / 0.06))
    paint(picture, opening, white[:, None] * np.array([1.0, 0.98, 0.96], np.float32)[:, None, None])
    away = np.sqrt(np.square(du - side * p["gaze_x"]) + np.square(dv + 0.012 - p["gaze_y"]))
    iris = opening * soft(away - p["iris_size"], f.px)
    light, blue = p["iris_light"], p["iris_blue"]
    tint = light[:, None] * np.stack([0.95 - 0.5 * blue, 0.62 + 0.1 * blue, 0.32 + 0.62 * blue], 1)
    paint(picture, iris, tint * (1.15 - 0.6 * smooth(away, 0.6 * p["iris_size"], p["iris_size"]))[:, None])
    paint(
        picture,
        iris * soft(away - 0.45 * p["iris_size"], f.px),
        np.array([0.04, 0.03, 0.03], np.float32)[:, None, None],
    )
    gleam = np.sqrt(np.square(f.u - side * p["eye_x"] + 0.025) + np.square(dv + 0.04)) - 0.018
    paint(picture, opening * soft(gleam, f.px) * 0.9, np.array([1, 1, 1], np.float32)[:, None, None])
    reach = inside * soft(np.abs(x) - p["eye_wide"] * 1.08, f.px)
    paint(picture, reach * soft(np.abs(y + top) - p["lash"], f.px) * 0.9, skin * 0.14)
    paint(picture, reach * bump(np.square((y - low) / 0.025)) * 0.4, skin * 0.35)
    crease = bump(np.square((y + top + 0.02 + p["crease"]) / 0.022)) * smooth(bow, 0.0, 0.3)
    paint(picture, reach * crease * 0.55, skin * 0.3)


def _paint_brows(picture: np.ndarray, p: Params, f: Frame, inside: np.ndarray) -> None:
    """Tilted, arched strokes that thin out towards the temples."""
    x = (np.abs(f.u) - p["eye_x"] - p["brow_x"]) / p["brow_long"]
    lift = p["brow_up"] * 0.6 + p["brow_frown"] * np.minimum(x, 0.4)
    y = f.v - p["eye_y"] + p["brow_gap"] + lift + p["brow_tilt"] * x - p["brow_arch"] * (x * x - 0.4)
    thick = p["brow_thick"] * np.clip(1 - 0.35 * x - 0.35 * x * x, 0.1, 1.2)
    hairs = 0.9 + 0.1 * np.sin(40 * x + 60 * y)
    mask = soft((np.abs(x) - 1) * p["brow_long"], f.px * 2) * soft(np.abs(y) - thick, f.px * 1.5) * hairs
    tone = p["hair_light"] * (1 - p["brow_dark"])
    paint(picture, inside * mask * 0.9, np.stack([tone, tone * 0.8, tone * 0.65], 1))
