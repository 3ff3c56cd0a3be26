"""glTF 2.0: meshes, materials, skins, morph targets and animations, as filters need them."""

from retinue.apps.ar.gltf.model import Model, load

__all__ = ["Model", "load"]
