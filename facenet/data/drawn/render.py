"""The drawing behind :mod:`facenet.data.drawn.faces`: soft masks on a head turned in space, B images at a time.

Letters: B batch, H = W image side. A parameter is (B, 1, 1) float32, a mask (B, H, W) in [0, 1], a picture
(B, 3, H, W) in [0, 1]. The unit of length is half the head's height; x points right, y down; angles are in
radians.
Only element-wise numpy is used, so an image does not depend on its batch mates.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from facenet.data.drawn.covers import paint_covers
from facenet.data.drawn.features import paint_features
from facenet.data.drawn.masks import Frame, Params, bump, colour, paint, skin_colour, smooth, soft

HEAD = 0.7  # half the head's height as a share of half the image


def render(p: Params, grain: np.ndarray) -> np.ndarray:
    """Draw B pictures from their parameters: uint8 (B, H, W, 3).

    `grain` (B, H, W) is standard normal; the caller draws it from each image's own seed.
    """
    size = grain.shape[-1]
    frame = head_frame(p, size)
    picture = background(p, size)
    hair = hair_texture(p, frame)
    paint(picture, long_hair(p, frame), hair * 0.8)
    paint_body(picture, p, frame)
    paint_head(picture, p, frame)
    paint_features(picture, p, frame)
    paint(picture, front_hair(p, frame), hair)
    paint_covers(picture, p, frame)
    return camera(picture, p, grain)


def head_frame(p: Params, size: int) -> Frame:
    """Turn pixels into the head's plane (x, y) and, through its round surface, into the face's (u, v)."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    dx, dy = axis[None, None, :] - p["shift_x"], axis[None, :, None] - p["shift_y"]
    c, s, unit = np.cos(p["roll"]), np.sin(p["roll"]), HEAD * p["scale"]
    x, y = (c * dx + s * dy) / unit, (c * dy - s * dx) / unit
    t = np.clip(y, -1, 1)
    below = smooth(t, 0.0, 1.0)
    x -= 0.16 * np.sin(p["yaw"]) * below  # the chin turns with the face
    half = p["head_width"] * (1 - p["jaw_taper"] * below) * (1 - p["temple_taper"] * smooth(-t, 0.0, 1.0))
    t2 = y * y
    row = t2 * (1 - p["chin_square"] + p["chin_square"] * t2)
    edge = half * np.sqrt(np.maximum(1 - row, 0.02))
    a = np.clip(x / edge, -1, 1)
    u = (a * np.cos(p["yaw"]) - np.sqrt(1 - a * a) * np.sin(p["yaw"])) * edge
    v = t * np.cos(p["pitch"]) - np.sqrt(1 - t * t) * np.sin(p["pitch"])
    radius = np.sqrt(np.square(x / half) + row)
    side = x / p["head_width"]
    return Frame(x, y, u, v, radius, side, lamp(p, side, y), 2 / (size * unit))


def background(p: Params, size: int) -> np.ndarray:
    """Two colours mixed by a gradient and a wave pattern (soft or hard stripes, or checks)."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = axis[None, None, :], axis[None, :, None]
    c, s = np.cos(p["back_angle"]), np.sin(p["back_angle"])
    along = c * x + s * y
    across = c * y - s * x
    wave = np.sin(p["back_freq"] * along + p["back_phase"])
    wave = wave * (1 - p["back_check"] + p["back_check"] * np.sin(p["back_freq"] * across * 0.8))
    wave = np.clip(wave * p["back_hard"], -1, 1) * p["back_wave"]
    mix = np.clip(0.5 + p["back_slope"] * along + wave, 0, 1)[:, None]
    first, second = colour(p, "back1"), colour(p, "back2")
    result: np.ndarray = first + mix * (second - first)
    return result


def hair_texture(p: Params, f: Frame) -> np.ndarray:
    """Hair colour with strands that bend with the person's curl: (B, 3, H, W)."""
    bend = p["curl"] * np.sin(p["curl_freq"] * f.y + 2.0 * f.x)
    strand = np.sin(22 * f.x + 9 * bend + 5 * f.y * f.x) * (0.10 + 0.08 * p["curl"])
    light = 1.0 + strand + 0.25 * bump(np.square((f.y + 0.85) / 0.35)) + f.lamp * 0.8
    dark, warm = p["hair_light"], p["hair_warm"]
    base = dark[:, None] * np.stack([1.02 + 0.22 * warm, 0.86 + 0 * warm, 0.70 - 0.25 * warm], 1)
    result: np.ndarray = np.clip(base * light[:, None], 0, 1)
    return result


def lamp(p: Params, side: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness change of the rounded head under the directional light, about 0 on average."""
    nx, ny = np.clip(side, -1, 1), np.clip(y, -1, 1) * 0.75
    nz = np.sqrt(np.clip(1 - 0.8 * (nx * nx + ny * ny), 0.05, 1))
    result: np.ndarray = (p["light_x"] * nx + p["light_y"] * ny) * 0.8 + 0.45 * (nz - 0.75)
    return result


def long_hair(p: Params, f: Frame) -> np.ndarray:
    """Mask of the hair behind head and neck."""
    wavy = 0.05 * p["curl"] * np.sin(p["curl_freq"] * 1.3 * f.y)
    half = p["head_width"] + p["hair_side"] * smooth(f.y, -1.0, -0.1) + wavy
    below = np.maximum(f.y - (p["hair_length"] - 0.3), 0) / 0.3
    above = np.minimum(f.y + 0.25, 0) / (0.75 + p["hair_top"])
    return soft(np.sqrt(np.square(f.x / half) + below * below + above * above) - 1, f.px * 1.4)


def front_hair(p: Params, f: Frame) -> np.ndarray:
    """Mask of the hair on the head: above the hairline, out to the hair's own outline."""
    side = np.minimum(np.abs(f.u) / p["head_width"], 1.1)
    line = p["hairline"] + p["part"] * 0.8 * f.u + 0.04 * p["curl"] * np.sin(24 * f.u * (0.6 + p["curl"]))
    line = line + (p["sideburn"] - p["hairline"]) * smooth(side, p["temple_hair"], p["temple_hair"] + 0.28)
    top = 1.0 + p["hair_top"] * smooth(-f.y, 0.0, 0.8) + 0.35 * p["hair_side"] * smooth(-f.y, -0.4, 0.3)
    outside = soft((f.radius - top) * 0.8 + 0.03 * p["curl"] * np.sin(14 * f.x + 3), f.px * 1.5)
    result: np.ndarray = outside * soft(f.v - line, f.px * 2)
    return result


def paint_body(picture: np.ndarray, p: Params, f: Frame) -> None:
    """Neck, ears and clothes."""
    skin = skin_colour(p)
    neck = soft(np.abs(f.x) - 0.54 * p["head_width"], f.px) * soft(0.3 - f.y, f.px)
    paint(picture, neck, skin * (0.68 + 0.25 * f.lamp[:, None]))
    shoulder = 1.22 + 0.3 * np.square(f.x) - 0.25 * bump(np.square(f.x / 0.7)) * p["collar"]
    paint(picture, soft(shoulder - f.y, f.px), colour(p, "cloth") * (0.9 + 0.5 * f.lamp[:, None]))
    turn = np.sin(p["yaw"])
    for side in (-1.0, 1.0):
        out = p["head_width"] * (0.95 - 0.32 * np.maximum(side * turn, 0)) + p["ear_out"]
        ear_x = (f.x - side * out) / (0.6 * p["ear_size"])
        ear_y = (f.y - p["ear_y"] - 0.3 * np.sin(p["pitch"])) / p["ear_size"]
        radius = np.sqrt(ear_x * ear_x + ear_y * ear_y)
        paint(picture, soft((radius - 1) * 0.14, f.px), skin * (0.88 + 0.4 * f.lamp[:, None]))
        paint(picture, 0.35 * bump(np.square(radius / 0.75)), skin * 0.55)


def paint_head(picture: np.ndarray, p: Params, f: Frame) -> None:
    """The shaded head: skin, cheeks, and darkness towards the outline."""
    rim = 1 - 0.25 * smooth(f.radius, 0.72, 1.05)
    skin = skin_colour(p) * (rim * (0.97 + f.lamp))[:, None]
    paint(picture, soft((f.radius - 1) * 0.8, f.px), np.clip(skin, 0, 1))


def camera(picture: np.ndarray, p: Params, grain: np.ndarray) -> np.ndarray:
    """Colour cast, gain, contrast, blur, grain and JPEG: uint8 (B, H, W, 3)."""
    gain = colour(p, "cast") * p["gain"][..., None]
    picture = (picture - 0.5) * p["contrast"][..., None] + 0.5
    picture = blur(np.clip(picture, 0, 1.2) * gain, p["blur"][..., None])
    picture += (grain * p["grain"])[:, None]
    pixels = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.stack([_jpeg(image, int(q)) for image, q in zip(pixels, p["quality"].ravel(), strict=True)])


def blur(picture: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Mix a picture with its 9x9 binomial blur (sigma about 1.4 pixels), `amount` in [0, 1]."""
    out = picture
    for axis in (-1, -2):
        for step in (1, 2):
            padded = np.concatenate([np.roll(out, step, axis), np.roll(out, -step, axis)], 0)
            out = 0.5 * out + 0.25 * (padded[: len(out)] + padded[len(out) :])
    result: np.ndarray = picture + amount * (out - picture)
    return result


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
