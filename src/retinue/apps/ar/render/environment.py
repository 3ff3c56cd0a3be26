"""Light: one formula, that OpenGL and the CPU both follow, and the studio that it stands in.

Of glTF's metallic-roughness model, what filters need, in linear colour. With N the surface's
normal, V towards the eye, R the mirrored view, and F0 = mix(0.04, base, metallic):

    diffuse  = base * (1 - metallic) * (AMBIENT(N) + KEY * max(N . L, 0))
    fresnel  = F0 + (max(1 - roughness, F0) - F0) * (1 - N . V)^5
    specular = fresnel * studio(R, roughness) + KEY * D(H, roughness) * F0
    colour   = diffuse + specular + emissive

AMBIENT goes from ground to sky by N's height. ``studio`` is a dark room with a bright window and
two soft boxes; roughness widens their edges. D is Blinn and Phong's lobe with the exponent
2 / roughness^4 - 2, normalised. Coordinates are the camera's: x right, y down, z away.
"""

from __future__ import annotations

from typing import Final

SKY: Final = (0.62, 0.64, 0.68)
GROUND: Final = (0.30, 0.27, 0.25)
KEY: Final = (0.62, 0.58, 0.53)
"""Linear RGB of the key light."""
LIGHT: Final = (-0.4082, -0.6804, -0.6085)
"""Unit vector towards the key light: above, to the left, from behind the camera."""
ROOM: Final = (0.05, 0.055, 0.07)
HORIZON: Final = (0.30, 0.30, 0.32)
WINDOW: Final = (2.2, 2.3, 2.5)
SOFT_BOX: Final = (1.1, 1.05, 1.0)
LEAST_ROUGHNESS: Final = 0.08
