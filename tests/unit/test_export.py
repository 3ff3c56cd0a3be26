"""`retinue export`: a Triton repository and KServe's YAML."""

import os
import shutil
from pathlib import Path

import onnx
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

from retinue.core.errors import (
    ConfigError,
    DiskFull,
    InvalidRequest,
    ModelCorrupt,
    ModelNotFound,
    NotWritable,
)
from retinue.core.settings import load_settings
from retinue.host.cli import cli
from retinue.host.export.kserve import Service, render
from retinue.host.export.triton import Serving, write_repository
from retinue.models.card import Card, Input, Output, Source
from retinue.models.registry import Entry, Registry
from retinue.testing import onnx_models

SERVING = Serving()


def card(name: str, **fields: object) -> Card:
    values: dict[str, object] = {
        "name": name,
        "task": "classify",
        "family": "efficientnet_lite",
        "license": "MIT",
        "source": Source(url="file:///x", files={"x": "0" * 64}),
        "input": Input(height=8, width=8),
        "output": Output(layout="classifier"),
        "classes": ("ant", "bee", "cat", "dog"),
    }
    return Card.model_validate(values | fields)


def installed(path: Path, name: str, **fields: object) -> Entry:
    from retinue.models.fetch import sha256_of

    digest = sha256_of(path)
    return Entry(card(name, **fields), digest[:12], path, digest, path.stat().st_size)


@pytest.fixture
def classifier(tmp_path: Path) -> Entry:
    return installed(onnx_models.convolution(tmp_path / "c.onnx"), "tiny")


def read(folder: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def test_a_repository_is_what_triton_reads(tmp_path: Path, classifier: Entry) -> None:
    out = tmp_path / "deep" / "repository"
    write_repository(out, [classifier], SERVING)
    config = read(out / "tiny")
    assert (config.name, config.platform, config.backend) == (
        "tiny",
        "onnxruntime_onnx",
        "onnxruntime",
    )
    assert config.max_batch_size == 32
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        ("picture", model_config_pb2.TYPE_FP32, [3, 8, 8])
    ]
    assert [(t.name, list(t.dims), t.label_filename) for t in config.output] == [
        ("features", [5], ""),
        ("scores", [4], "labels.txt"),
    ]
    assert config.dynamic_batching.max_queue_delay_microseconds == 5000
    assert [(g.count, g.kind) for g in config.instance_group] == [
        (4, model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    ]
    warm_up = config.model_warmup[0].inputs["picture"]
    assert (warm_up.zero_data, list(warm_up.dims)) == (True, [3, 8, 8])
    assert (out / "tiny" / "labels.txt").read_text().split() == ["ant", "bee", "cat", "dog"]
    assert (out / "tiny" / "1" / "model.onnx").read_bytes() == classifier.path.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["repository"]


def test_a_fixed_batch_is_no_batching(tmp_path: Path, classifier: Entry) -> None:
    model = onnx.load(classifier.path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    entry = installed(tmp_path / "fixed.onnx", "fixed")
    write_repository(tmp_path / "out", [entry], Serving("cpu", 2, 8, 0))
    config = read(tmp_path / "out" / "fixed")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [1, 3, 8, 8]
    assert list(config.model_warmup[0].inputs["picture"].dims) == [1, 3, 8, 8]
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU


def test_a_detector_has_no_labelled_output(tmp_path: Path) -> None:
    entry = installed(onnx_models.color_detector(tmp_path / "d.onnx"), "det", task="detect")
    write_repository(tmp_path / "out", [entry], SERVING)
    assert not (tmp_path / "out" / "det" / "labels.txt").exists()


def test_only_an_earlier_export_is_replaced(tmp_path: Path, classifier: Entry) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_repository(out, [classifier], SERVING)
    with pytest.raises(ConfigError, match="is not empty"):
        write_repository(out, [classifier], SERVING)
    write_repository(out, [classifier], Serving(instances=7), force=True)
    assert read(out / "tiny").instance_group[0].count == 7
    (out / "letters").mkdir()
    with pytest.raises(ConfigError, match="holds 'letters', which no export made"):
        write_repository(out, [classifier], SERVING, force=True)
    assert read(out / "tiny").instance_group[0].count == 7


@pytest.mark.parametrize("file", ["config.pbtxt", "2/model.onnx"])
def test_what_somebody_else_put_there_is_never_replaced(
    tmp_path: Path, classifier: Entry, file: str
) -> None:
    out = tmp_path / "out"
    write_repository(out, [classifier], SERVING)
    theirs = out / "tiny" / file
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text('name: "tiny"')
    with pytest.raises(ConfigError, match="holds 'tiny', which no export made"):
        write_repository(out, [classifier], SERVING, force=True)
    assert theirs.read_text() == 'name: "tiny"'


def test_a_link_stays_one(tmp_path: Path, classifier: Entry) -> None:
    link, real = tmp_path / "link", tmp_path / "disk" / "real"
    link.symlink_to(real)
    for force in (False, True):
        write_repository(link, [classifier], SERVING, force=force)
        assert link.is_symlink()
        assert (real / "tiny" / "config.pbtxt").is_file()


def test_a_folder_that_cannot_be_replaced_is_refused(
    tmp_path: Path, classifier: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patched:
        patched.chdir(out)
        with pytest.raises(ConfigError, match="name a folder inside it"):
            write_repository(Path(), [classifier], SERVING)
        write_repository(Path("inside"), [classifier], SERVING)
    with pytest.raises(ConfigError, match="/proc is a mount point"):
        write_repository(Path("/proc"), [classifier], SERVING, force=True)


def test_a_failure_leaves_what_was_there(
    tmp_path: Path, classifier: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "target" / "out"
    write_repository(out, [classifier], SERVING)
    before = sorted(out.parent.rglob("*"))
    path = onnx_models.aliases(tmp_path / "broken.onnx")
    broken = installed(path, "broken")
    path.write_bytes(path.read_bytes() + b"?")
    with pytest.raises(ModelCorrupt, match="not what was installed"):
        write_repository(out, [classifier, broken], SERVING, force=True)

    def full(*arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(DiskFull):
            write_repository(out, [classifier], SERVING, force=True)
    rename = Path.rename

    def fail_on_made(self: Path, target: Path) -> Path:
        if self.name == "made":
            full()
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail_on_made)
        with pytest.raises(DiskFull):
            write_repository(out, [classifier], SERVING, force=True)
    assert sorted(out.parent.rglob("*")) == before


def test_a_file_in_the_way_is_named(tmp_path: Path, classifier: Entry) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotWritable, match="out"):
        write_repository(tmp_path / "out", [classifier], SERVING)
    assert (tmp_path / "out").read_text() == "mine"


def test_the_command_exports_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    run = CliRunner()
    nothing = run.invoke(cli, ["export", "triton", str(tmp_path / "out")])
    assert isinstance(nothing.exception, ModelNotFound)
    path = onnx_models.convolution(tmp_path / "c.onnx")
    Registry(load_settings().cache).import_onnx(path, card=card("tiny", source=_source(path)))
    done = run.invoke(
        cli, ["export", "triton", str(tmp_path / "out"), "--kind", "gpu", "--delay-ms", "2.5"]
    )
    assert done.exit_code == 0, done.output
    config = read(tmp_path / "out" / "tiny")
    assert config.dynamic_batching.max_queue_delay_microseconds == 2500
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    other = run.invoke(cli, ["export", "triton", str(tmp_path / "b"), "--model", "nope"])
    assert isinstance(other.exception, ModelNotFound)
    assert not (tmp_path / "b").exists()
    shown = run.invoke(cli, ["export", "kserve"])
    assert '["tiny"]' in yaml_documents(shown.stdout)[0]["spec"]["containers"][0]["env"][0]["value"]
    run.invoke(cli, ["export", "kserve", "--out", str(tmp_path / "k.yaml")])
    assert (tmp_path / "k.yaml").read_text() == shown.stdout


def _source(path: Path) -> Source:
    from retinue.models.fetch import sha256_of

    return Source(url=path.as_uri(), files={path.name: sha256_of(path)})


def yaml_documents(text: str) -> list[dict]:
    return list(yaml.safe_load_all(text))


def environment(runtime: dict) -> dict[str, object]:
    (container,) = runtime["spec"]["containers"]
    return {one["name"]: one.get("value") for one in container["env"]}


def test_kserve_s_yaml_says_how_retinue_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("cats", ("a", "b"), "registry/retinue:1", max_batch=8, window_ms=5.0, cpu="3")
    runtime, inference = yaml_documents(render(service))
    assert (runtime["kind"], inference["kind"]) == ("ServingRuntime", "InferenceService")
    (container,) = runtime["spec"]["containers"]
    assert container["args"][:3] == ["up", "--host", "0.0.0.0"]
    assert "--insecure" in container["args"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8080}
    model = inference["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"] == "cats"
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert "storageUri" not in model
    for name, value in environment(runtime).items():
        monkeypatch.setenv(name, str(value))
    settings = load_settings()
    assert settings.models == ("a", "b")
    assert settings.server.allowed_hosts == ("*",)
    assert settings.execution.instances == 3
    assert (settings.batching.max_batch, settings.batching.window_ms) == (8, 5.0)


def test_kserve_s_yaml_quotes_what_it_is_given() -> None:
    odd = 'x: "y"\n- z #'
    service = Service("cats", ("a",), odd, storage_uri=odd, keys_secret=odd)
    runtime, inference = yaml_documents(render(service))
    (container,) = runtime["spec"]["containers"]
    assert container["image"] == odd
    assert "--insecure" not in container["args"]
    assert inference["spec"]["predictor"]["model"]["storageUri"] == odd
    assert environment(runtime)["RETINUE_CACHE"] == "/mnt/models"
    keys = next(one for one in container["env"] if one["name"] == "RETINUE_SERVER__API_KEYS")
    assert keys["valueFrom"]["secretKeyRef"] == {"name": odd, "key": "api_keys"}


@pytest.mark.parametrize(
    ("cpu", "instances"), [("2", 2), ("2.9", 2), ("500m", 1), ("8000m", 8), ("1000", 256)]
)
def test_a_pod_has_one_instance_a_cpu_of_its_own(cpu: str, instances: int) -> None:
    assert Service("x", ("a",), "i", cpu=cpu).instances == instances


@pytest.mark.parametrize(
    ("field", "value"), [("name", "No"), ("name", "a\n"), ("cpu", "two"), ("memory", "2 GB")]
)
def test_what_kubernetes_refuses_is_refused_here(field: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match=f"--{field}"):
        render(Service(**{"name": "x", "models": ("a",), "image": "i", field: value}))  # type: ignore[arg-type]
