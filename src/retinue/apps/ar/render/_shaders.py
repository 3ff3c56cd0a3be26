"""The shaders of `retinue.apps.ar.render.gl`; the formula is `environment`'s."""

from __future__ import annotations

from typing import Final

from retinue.apps.ar.render import environment as light


def _vector(values: tuple[float, ...]) -> str:
    return f"vec{len(values)}({', '.join(repr(float(value)) for value in values)})"


VERTEX: Final = """
#version 330
uniform mat4 model;
uniform mat4 projection;
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec4 in_color;
out vec3 v_place;
out vec3 v_normal;
out vec2 v_uv;
out vec4 v_color;
void main() {
    vec4 place = model * vec4(in_position, 1.0);
    v_place = place.xyz;
    v_normal = mat3(model) * in_normal;
    v_uv = in_uv;
    v_color = in_color;
    gl_Position = projection * place;
}
"""

FRAGMENT: Final = f"""
#version 330
uniform vec4 base_color;
uniform vec3 emissive;
uniform float metallic;
uniform float roughness;
uniform float opacity;
uniform float cutoff;
uniform int mode;      // 0 opaque, 1 mask, 2 blend
uniform bool textured;
uniform bool unlit;
uniform sampler2D picture;
in vec3 v_place;
in vec3 v_normal;
in vec2 v_uv;
in vec4 v_color;
out vec4 color;

vec3 to_linear(vec3 c) {{
    return mix(c / 12.92, pow((c + 0.055) / 1.055, vec3(2.4)), step(0.04045, c));
}}
vec3 to_srgb(vec3 c) {{
    c = clamp(c, 0.0, 1.0);
    return mix(c * 12.92, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c));
}}
float soft(float low, float high, float x, float wide) {{
    return smoothstep(low - wide, low + wide, x) * (1.0 - smoothstep(high - wide, high + wide, x));
}}
vec3 studio(vec3 r, float rough) {{
    float wide = 0.04 + 0.6 * rough;
    float up = -r.y;
    vec3 seen = mix({_vector(light.ROOM)}, {_vector(light.HORIZON)}, exp(-6.0 * abs(up)));
    seen += {_vector(light.WINDOW)} * soft(0.25, 0.75, up, wide) * soft(-0.75, -0.2, r.x, wide)
        * step(r.z, 0.6);
    seen += {_vector(light.SOFT_BOX)} * soft(-0.1, 0.5, up, wide) * soft(0.55, 0.85, r.x, wide)
        * step(r.z, 0.6);
    return seen + 0.5 * rough * mix({_vector(light.GROUND)}, {_vector(light.SKY)}, 0.5 + 0.5 * up);
}}
void main() {{
    vec4 base = base_color * v_color;
    if (textured) {{
        vec4 texel = texture(picture, v_uv);
        base *= vec4(to_linear(texel.rgb), texel.a);
    }}
    if (mode == 1 && base.a < cutoff) discard;
    float alpha = (mode == 2 ? base.a : 1.0) * opacity;
    vec3 lit = base.rgb;
    if (!unlit) {{
        vec3 n = normalize(v_normal);
        vec3 v = normalize(-v_place);
        if (dot(n, v) < 0.0) n = -n;
        vec3 l = {_vector(light.LIGHT)};
        vec3 key = {_vector(light.KEY)};
        float rough = max(roughness, {light.LEAST_ROUGHNESS});
        vec3 f0 = mix(vec3(0.04), base.rgb, metallic);
        float facing = clamp(dot(n, v), 0.0, 1.0);
        vec3 ambient = mix({_vector(light.GROUND)}, {_vector(light.SKY)}, 0.5 - 0.5 * n.y);
        vec3 diffuse = base.rgb * (1.0 - metallic) * (ambient + key * max(dot(n, l), 0.0));
        vec3 fresnel = f0 + (max(vec3(1.0 - rough), f0) - f0) * pow(1.0 - facing, 5.0);
        float exponent = max(2.0 / pow(rough, 4.0) - 2.0, 1.0);
        float lobe = (exponent + 2.0) / 8.0 * pow(max(dot(n, normalize(l + v)), 0.0), exponent);
        vec3 mirrored = fresnel * studio(reflect(-v, n), rough);
        vec3 shine = key * min(lobe, 8.0) * f0 * max(dot(n, l), 0.0);
        lit = diffuse + emissive;
        vec3 over = mirrored + shine;
        // What is mirrored does not fade with the glass that mirrors it.
        if (mode == 2) {{
            color = vec4(to_srgb(lit) * alpha + to_srgb(over) * opacity, alpha);
            return;
        }}
        lit += over;
    }} else {{
        lit += emissive;
    }}
    color = vec4(to_srgb(lit) * alpha, alpha);
}}
"""

DEPTH_FRAGMENT: Final = """
#version 330
out vec4 color;
void main() { color = vec4(0.0); }
"""
