"""Discovery: by file name without imports, and by entry point."""

import subprocess
import sys
from pathlib import Path

import pytest

from retinue.core import plugins
from retinue.core.errors import PluginError


@pytest.mark.parametrize("kind", plugins.KINDS, ids=lambda kind: kind.name)
def test_every_builtin_has_the_shape_of_its_kind(kind: plugins.Kind) -> None:
    found = plugins.names(kind)
    assert found
    for name in found:
        assert plugins.load(kind, name) is not None


def test_listing_imports_no_plugin() -> None:
    code = (
        "import sys; from retinue.core import plugins\n"
        "for kind in plugins.KINDS: plugins.names(kind)\n"
        "heavy = {'onnxruntime', 'openvino', 'cv2', 'prometheus_client'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_and_misshapen_plugins_are_named() -> None:
    with pytest.raises(PluginError, match=r"no runtimes plug-in is called 'nope'; known: .*onnx"):
        plugins.load(plugins.RUNTIMES, "nope")
    kind = plugins.Kind("runtimes", "retinue.runtimes", "NOT_THERE")
    with pytest.raises(PluginError, match="has no NOT_THERE"):
        plugins.load(kind, "onnxruntime")
    with pytest.raises(PluginError, match="cannot import"):
        plugins.resolve("retinue.core.types:Nope")


def test_a_plugin_that_fails_on_import_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    code = (
        f"import retinue.runtimes; retinue.runtimes.__path__.append({str(tmp_path)!r})\n"
        "from retinue.core import errors, plugins\n"
        "try: plugins.load(plugins.RUNTIMES, 'broken')\n"
        "except errors.PluginError as error: print(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "'broken' cannot be imported: ZeroDivisionError: division by zero" in done.stdout


def test_a_package_from_outside_adds_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "outsider.py").write_text("OBSERVER = 'seen'\n")
    info = tmp_path / "outsider-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[retinue.observers]\nouter = outsider\n")
    code = (
        "from retinue.core import plugins\n"
        "assert 'outer' in plugins.names(plugins.OBSERVERS)\n"
        "assert plugins.load(plugins.OBSERVERS, 'outer') == 'seen'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(tmp_path)})
