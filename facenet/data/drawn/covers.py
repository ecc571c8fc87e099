"""What may cover a drawn face: glasses, a hat, a bar, a hand; each only on the pictures that have one."""

from __future__ import annotations

import numpy as np

from facenet.data.drawn.masks import Frame, Params, colour, paint, skin_colour, soft


def paint_covers(picture: np.ndarray, p: Params, f: Frame) -> None:
    """Paint each cover, in place, onto the rows of the batch whose parameter of that name is 1."""
    for kind, painter in (("glasses", _glasses), ("hat", _hat), ("bar", _bar), ("hand", _hand)):
        rows = np.flatnonzero(p[kind].ravel() > 0)
        if rows.size:
            part = picture[rows]
            painter(part, {name: value[rows] for name, value in p.items()}, f.rows(rows))
            picture[rows] = part


def _glasses(picture: np.ndarray, p: Params, f: Frame) -> None:
    """Two rims on a bridge and temples, over glass that is clear or tinted."""
    u, v = f.u - 0.12 * np.sin(p["yaw"]), f.v - p["eye_y"] - 0.02
    power = 1.0 + p["glasses_square"]
    lens = np.square((np.abs(u) - 0.31) / p["glasses_width"]) ** power
    lens = lens + np.square(v / p["glasses_height"]) ** power
    ring = (np.sqrt(lens) - 1) * p["glasses_height"]
    frame_colour = colour(p, "frame")
    head = soft((f.radius - 1.03) * 0.8, f.px)
    paint(picture, head * soft(ring, f.px) * p["glasses_tint"], frame_colour * 0.4)
    paint(picture, head * soft(np.abs(ring) - p["glasses_thick"], f.px), frame_colour)
    bridge = soft(np.abs(v + 0.03) - 0.022, f.px)
    away = np.abs(np.abs(u) - 0.31) - p["glasses_width"]  # neither within a lens
    paint(picture, head * bridge * soft(-away, f.px), frame_colour)


def _hat(picture: np.ndarray, p: Params, f: Frame) -> None:
    """A cap with a darker brim over the forehead."""
    base = p["hat_y"] - 0.12 * np.square(f.u)
    dome = soft((np.sqrt(np.square(f.side / 1.12) + np.square(f.y / 1.18)) - 1) * 0.9, f.px)
    cloth = np.clip(colour(p, "cover") * (0.95 + f.lamp)[:, None], 0, 1)
    paint(picture, dome * soft(f.v - base, f.px), cloth)
    brim = soft(np.abs(f.v - base) - 0.05, f.px) * soft(np.abs(f.x) - 1.1 * p["head_width"], f.px)
    paint(picture, brim, colour(p, "cover") * 0.6)


def _bar(picture: np.ndarray, p: Params, f: Frame) -> None:
    """A straight object that crosses the picture in front of the face."""
    place = np.cos(p["bar_angle"]) * f.x + np.sin(p["bar_angle"]) * f.y - p["bar_place"]
    paint(
        picture,
        soft(np.abs(place) - p["bar_half"], f.px),
        colour(p, "cover") * (1.0 - 0.3 * np.abs(place)[:, None]),
    )


def _hand(picture: np.ndarray, p: Params, f: Frame) -> None:
    """Four fingers of the person's own skin, rising from below over a cheek or the chin."""
    skin = skin_colour(p)
    x, y = (f.x - p["hand_x"]) + 0.35 * p["hand_lean"] * (f.y - 1), f.y - p["hand_y"]
    for finger, top in ((-1.5, 0.12), (-0.5, 0.0), (0.5, 0.03), (1.5, 0.16)):
        fx = x - 0.15 * finger
        above = np.minimum(y - top, 0)
        radius = np.sqrt(fx * fx + above * above)
        shaded = skin * (1.0 - 28 * np.minimum(radius * radius, 0.02) + 0.15 * f.lamp)[:, None]
        paint(picture, soft(radius - 0.085, f.px), np.clip(shaded, 0, 1))
