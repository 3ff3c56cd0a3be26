"""The formula of `environment` in GLSL 3.30, with its numbers put in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from retinue.apps.ar.render import environment as studio
from retinue.apps.ar.render.environment import Lamp

Lighting = Literal["unlit", "vertex", "pixel"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a program is made for.

    Attributes:
        lighting: Where light is computed.
        textured: Whether there is a texture.
        colored: Whether vertices have colours.
        alpha: As `Material.alpha_mode`.
        mirrored: Whether the texture's `wrap` is "mirror".
    """

    lighting: Lighting
    textured: bool
    colored: bool
    alpha: Literal["opaque", "mask", "blend"]
    mirrored: bool = False

    @property
    def defines(self) -> str:
        """For the preprocessor."""
        names: list[str] = [self.lighting, self.alpha]
        names += [name for name in ("textured", "colored", "mirrored") if getattr(self, name)]
        return "".join(f"#define {name.upper()}\n" for name in names)


def _vec(values: tuple[float, ...]) -> str:
    return f"vec{len(values)}({', '.join(f'{value:.9g}' for value in values)})"


def _lamp(lamp: Lamp) -> str:
    axes = ", ".join(_vec(axis) for axis in (lamp.middle, lamp.right, lamp.up))
    return f"    light += vec3({lamp.light:.9g} * lamp(d, {axes}, {_vec(lamp.half)}, w));\n"


_LIGHT: Final = f"""
uniform float metallic;
uniform float roughness;
float lamp(vec3 d, vec3 middle, vec3 right, vec3 up, vec2 half_, float w) {{
    vec2 at = abs(vec2(dot(d, right), dot(d, up))) / max(dot(d, middle), 1e-4);
    vec2 inside = (1.0 - smoothstep(half_ - w, half_ + w, at)) * half_ / (half_ + 0.5 * w);
    return inside.x * inside.y;
}}
void lit(vec3 n, vec3 v, out vec3 gain, out vec3 shine) {{
    float facing = max(dot(n, v), 1e-3);
    float w = {studio.SHARPEST} + {studio.BLUR} * roughness;
    vec3 d = 2.0 * facing * n - v;
    vec3 light = mix({_vec(studio.FLOOR)}, {_vec(studio.WALL)}, smoothstep(-w, w, d.y));
{"".join(_lamp(lamp) for lamp in studio.LAMPS)}
    vec4 r = roughness * vec4(-1.0, -0.0275, -0.572, 0.022) + vec4(1.0, 0.0425, 1.04, -0.04);
    float power = 1.0 - 0.201 * facing;
    for (int i = 0; i < 5; i++) power *= power;
    float edge = min(r.x * r.x, power) * r.x + r.y;
    vec2 split = vec2(-1.04, 1.04) * edge + r.zw;
    float key = max(0.0, (dot(n, {_vec(studio.KEY)}) + {studio.WRAP}) / {1 + studio.WRAP});
    vec3 diffuse = mix({_vec(studio.GROUND)}, {_vec(studio.SKY)}, 0.5 + 0.5 * n.y)
        + key * {_vec(studio.KEY_LIGHT)};
    gain = (1.0 - metallic) * diffuse + metallic * split.x * light;
    shine = ((1.0 - metallic) * {studio.DIELECTRIC} * split.x + split.y) * light;
}}
"""

_ENCODE: Final = f"""
vec3 encode(vec3 color) {{
    vec3 s = sqrt(clamp(color, 0.0, 1.0));
    vec3 upper = {studio.ENCODE[4]:.9f} * s + {studio.ENCODE[3]:.9f};
    upper = (upper * s + ({studio.ENCODE[2]:.9f})) * s + {studio.ENCODE[1]:.9f};
    upper = upper * s + ({studio.ENCODE[0]:.9f});
    return mix(12.92 * s * s, upper, step({studio.ENCODE_FROM}, s));
}}
"""

_VERTEX: Final = (
    """
uniform mat4 to_clip;
uniform mat4 to_camera;
uniform mat3 to_light;
uniform float two_sided;
uniform vec4 factor;
uniform vec2 detail;  // log2 of texels per density at 1 cm, and the most
in vec3 position;
invariant gl_Position;
#ifdef TEXTURED
in vec2 uv;
in float density;
out vec3 at;
#endif
#ifdef COLORED
in vec4 color;
out vec4 tint;
#endif
#ifndef UNLIT
in vec3 normal;
out vec3 first;
out vec3 second;
"""
    + _LIGHT
    + f"""
#endif
void main() {{
    vec4 place = to_camera * vec4(position, 1.0);
    gl_Position = to_clip * place;
    float lean = 1.0;
#ifdef COLORED
    tint = factor * color;
#endif
#ifndef UNLIT
    vec3 n = normalize(to_light * normal);
    vec3 v = normalize(vec3(-place.x, place.y, place.z));
    float facing = dot(n, v);
    if (two_sided * facing < 0.0) {{ n = -n; facing = -facing; }}
    lean = clamp(facing, {studio.LEAST_FACING}, 1.0);
#ifdef VERTEX
    lit(n, v, first, second);
#else
    first = n;
    second = v;
#endif
#endif
#ifdef TEXTURED
    float level = detail.x + log2(max(density * place.z, 1e-9)) - 0.5 * log2(lean);
    at = vec3(uv, clamp(level, 0.0, detail.y));
#endif
}}
"""
)

_FRAGMENT: Final = (
    """
uniform vec4 factor;
uniform vec4 glow;  // emissive, opacity
uniform float cutoff;
#ifdef TEXTURED
in vec3 at;
uniform sampler2D picture;
#endif
#ifdef COLORED
in vec4 tint;
#else
#define tint factor
#endif
#ifndef UNLIT
in vec3 first;
in vec3 second;
"""
    + _LIGHT
    + """
#endif
out vec4 drawn;
"""
    + _ENCODE
    + """
void main() {
    vec4 base = tint;
    float cut = 1.0;
#ifdef TEXTURED
    float level = floor(at.z);
    vec2 uv = at.xy;
#ifdef MIRRORED
    uv = 1.0 - abs(mod(uv, 2.0) - 1.0);
#endif
    vec4 texel = mix(textureLod(picture, uv, level), textureLod(picture, uv, level + 1.0),
                     clamp(2.0 * (at.z - level) - 0.5, 0.0, 1.0));
    base.rgb *= texel.rgb * texel.rgb;
    cut = texel.a;
#endif
#ifdef MASK
    if (cut * base.a < cutoff) discard;
#endif
#ifdef UNLIT
    vec3 gain = vec3(1.0);
    vec3 shine = vec3(0.0);
    vec3 emitted = vec3(0.0);
#else
    vec3 emitted = glow.rgb;
#ifdef VERTEX
    vec3 gain = first;
    vec3 shine = second;
#else
    vec3 gain, shine;
    lit(normalize(first), normalize(second), gain, shine);
#endif
#endif
#ifdef BLEND
    float bright = min(1.0, max(shine.r, max(shine.g, shine.b)));
    float alpha = 1.0 - (1.0 - base.a) * (1.0 - bright);
    vec3 color = (base.a * (base.rgb * gain + emitted) + shine) / max(alpha, 1e-6);
    alpha *= cut * glow.a;
#else
    float alpha = glow.a;
    vec3 color = base.rgb * gain + shine + emitted;
#endif
    drawn = vec4(encode(color) * alpha, alpha);
}
"""
)

_DEPTH_VERTEX: Final = """
uniform mat4 to_clip;
uniform mat4 to_camera;
in vec3 position;
invariant gl_Position;
void main() { gl_Position = to_clip * (to_camera * vec4(position, 1.0)); }
"""


def sources(kind: Kind | None) -> tuple[str, str]:
    """Return a vertex and a fragment shader; None draws depth alone."""
    head = "#version 330\n"
    if kind is None:
        return head + _DEPTH_VERTEX, head + "void main() {}\n"
    return head + kind.defines + _VERTEX, head + kind.defines + _FRAGMENT
