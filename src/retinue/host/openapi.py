"""The OpenAPI 3.1 document, made from the apps' manifests and the fixed routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

import retinue
from retinue.core.apps import App, Route

Json = dict[str, Any]

ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["path", "error"],
    "properties": {
        "path": {"type": "string", "description": "The file name that the client gave"},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "examples": ["corrupt_media", "queue_full"]},
                "message": {"type": "string"},
            },
        },
        "request_id": {"type": "string"},
    },
}
PROTOCOL_ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}
_TENSOR: Json = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "examples": ["FP32"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
    },
}
_FILLED_TENSOR: Json = {
    **_TENSOR,
    "properties": {
        **_TENSOR["properties"],
        "data": {"type": "array", "description": "Row-major, flat or nested"},
        "parameters": {
            "type": "object",
            "properties": {"binary_data_size": {"type": "integer"}},
        },
    },
}
_OUTPUT: Json = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {
                "binary_data": {"type": "boolean"},
                "classification": {"type": "integer", "minimum": 0},
            },
        },
    },
}
INFER_REQUEST_SCHEMA: Json = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {
                "timeout": {"type": "integer", "minimum": 0, "description": "Microseconds"},
                "priority": {"type": "integer", "minimum": 0, "maximum": 201},
                "binary_data_output": {"type": "boolean"},
                "conf": {"description": "Detections of images below this score are left out"},
            },
        },
        "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/FilledTensor"}},
        "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Output"}},
    },
}
INFER_RESPONSE_SCHEMA: Json = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {
        "id": {"type": "string"},
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/FilledTensor"}},
    },
}
_IMAGE_BODY: Json = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
    },
}


_OBJECT: Json = {"type": "object"}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Mapping[str, Any], description: str = "OK") -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _operation(
    identity: str, summary: str, tag: str, schema: Mapping[str, Any], error: str = "Error"
) -> Json:
    return {
        "operationId": identity,
        "summary": summary,
        "tags": [tag],
        "responses": {"200": _json(schema), "default": _json(_ref(error), "What was wrong")},
    }


def _app_operation(app: App, route: Route) -> Json:
    plain = re.sub(r"[{}]|:path", "", route.path).strip("/").replace("/", "_")
    name = plain if route.method == "POST" else f"{route.method.lower()}_{plain}"
    operation = _operation(name, route.summary, app.title, route.response or {"type": "object"})
    if route.body != "none":
        operation["requestBody"] = _app_body(route)
    operation["parameters"] = [
        *(_path_parameter(found) for found in re.findall(r"{(\w+)", route.path)),
        *(
            {"name": parameter, "in": "query", "description": description, "schema": dict(schema)}
            for parameter, (schema, description) in route.parameters.items()
        ),
    ]
    answer = operation["responses"]["200"]
    if route.binary:
        binary: Json = {"schema": {"type": "string", "format": "binary"}}
        answer["content"] = {route.binary: binary}
    answer["headers"] = {"x-request-id": {"schema": {"type": "string"}}}
    if route.body == "file":
        answer["headers"]["retinue-recorded"] = {
            "description": "Whether the request's record is durable",
            "schema": {"type": "string", "enum": ["true", "false"]},
        }
    return operation


def _app_body(route: Route) -> Json:
    if route.body == "file":
        return _IMAGE_BODY
    schema: Json = dict(route.schema) or {"type": "object"}
    if route.body == "json":
        return {"required": True, "content": {"application/json": {"schema": schema}}}
    fields = {**schema.get("properties", {}), "file": {"type": "string", "format": "binary"}}
    return {
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": {"type": "object", "properties": fields}},
            "application/json": {"schema": schema},
        }
    }


def _app_paths(apps: Iterable[App]) -> Json:
    paths: Json = {}
    for app in apps:
        for route in app.routes:
            shown = route.path.replace(":path}", "}")
            paths.setdefault(shown, {})[route.method.lower()] = _app_operation(app, route)
    return paths


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _model_paths(base: str, suffix: str, parameters: list[Json]) -> Json:
    tag = "Open Inference Protocol v2"
    metadata = _operation(f"model_metadata{suffix}", "A model's tensors", tag, _ref("Model"), "Oip")
    ready = {"type": "object", "properties": {"name": {}, "ready": {"type": "boolean"}}}
    config = _operation(f"model_config{suffix}", "A model's configuration", tag, _OBJECT, "Oip")
    stats = _operation(f"model_stats{suffix}", "What a model has done", tag, _ref("Stats"), "Oip")
    is_ready = _operation(f"model_ready{suffix}", "Whether a model is ready", tag, ready, "Oip")
    infer = _operation(
        f"model_infer{suffix}", "Run a model on tensors", tag, _ref("InferResponse"), "Oip"
    )
    binary: Json = {"schema": {"type": "string", "format": "binary"}}
    infer["responses"]["200"]["content"]["application/octet-stream"] = binary
    infer["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": _ref("InferRequest")},
            "application/octet-stream": binary,
        },
    }
    infer["parameters"] = [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": (
                "Length of the JSON object that precedes binary tensors, in bytes; 0: the body is "
                "the data of the model's only input"
            ),
            "schema": {"type": "integer"},
        }
    ]
    return {
        base: {"parameters": parameters, "get": metadata},
        f"{base}/ready": {"parameters": parameters, "get": is_ready},
        f"{base}/infer": {"parameters": parameters, "post": infer},
        f"{base}/config": {"parameters": parameters, "get": config},
        f"{base}/stats": {"parameters": parameters, "get": stats},
    }


def _repository_paths(parameters: list[Json]) -> Json:
    tag = "Open Inference Protocol v2"
    index = _operation("repository_index", "The installed models", tag, _ref("Index"), "Oip")
    index["requestBody"] = {
        "content": {"application/json": {"schema": {"properties": {"ready": {"type": "boolean"}}}}}
    }
    paths: Json = {"/v2/repository/index": {"post": index}}
    for verb, summary in (("load", "Load an installed model"), ("unload", "Unload a model")):
        change = _operation(f"repository_{verb}", summary, tag, {}, "Oip")
        change["responses"]["200"] = {"description": "Done"}
        paths[f"/v2/repository/models/{{model}}/{verb}"] = {
            "parameters": parameters,
            "post": change,
        }
    return paths


def _v2_paths() -> Json:
    tag = "Open Inference Protocol v2"
    model, version = _path_parameter("model"), _path_parameter("version")
    server = {"type": "object", "properties": {"name": {}, "version": {}, "extensions": {}}}
    flag = {"type": "object", "additionalProperties": {"type": "boolean"}}
    return {
        "/v2": {"get": _operation("server_metadata", "The server", tag, server, "Oip")},
        "/v2/health/live": {"get": _operation("server_live", "Live", tag, flag, "Oip")},
        "/v2/health/ready": {"get": _operation("server_ready", "Ready", tag, flag, "Oip")},
        "/v2/models/stats": {
            "get": _operation("all_stats", "What all models have done", tag, _ref("Stats"), "Oip")
        },
        **_model_paths("/v2/models/{model}", "", [model]),
        **_model_paths("/v2/models/{model}/versions/{version}", "_version", [model, version]),
        **_repository_paths([model]),
    }


def _server_paths() -> Json:
    word = {"type": "object", "properties": {"status": {"type": "string"}}}
    metrics = _operation("metrics", "Metrics for Prometheus", "Server", {})
    metrics["responses"]["200"] = {
        "description": "OK",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    live = _operation("healthz", "Whether the process answers", "Server", word)
    ready = _operation("readyz", "Whether it takes work", "Server", word)
    ready["responses"]["503"] = _json(word, "Loading or draining")
    for public in (live, ready):
        public["security"] = []
    status = {"type": "object", "properties": {"models": {}, "apps": {}, "version": {}}}
    return {
        "/v1/status": {"get": _operation("status", "Loaded models and apps", "Server", status)},
        "/healthz": {"get": live},
        "/readyz": {"get": ready},
        "/metrics": {"get": metrics},
    }


def document(apps: Iterable[App]) -> Json:
    """Return the OpenAPI 3.1 document of everything that is served."""
    schemas = {
        "Error": ERROR_SCHEMA,
        "Oip": PROTOCOL_ERROR_SCHEMA,
        "Tensor": _TENSOR,
        "FilledTensor": _FILLED_TENSOR,
        "Output": _OUTPUT,
        "InferRequest": INFER_REQUEST_SCHEMA,
        "InferResponse": INFER_RESPONSE_SCHEMA,
        "Stats": {
            "type": "object",
            "required": ["model_stats"],
            "properties": {"model_stats": {"type": "array", "items": _OBJECT}},
        },
        "Index": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "version", "state"],
                "properties": {
                    key: {"type": "string"} for key in ("name", "version", "state", "reason")
                },
            },
        },
        "Model": {
            "type": "object",
            "required": ["name", "platform", "inputs", "outputs"],
            "properties": {
                "name": {"type": "string"},
                "versions": {"type": "array", "items": {"type": "string"}},
                "platform": {"type": "string"},
                "inputs": {"type": "array", "items": _ref("Tensor")},
                "outputs": {"type": "array", "items": _ref("Tensor")},
            },
        },
    }
    keys = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Retinue",
            "version": retinue.__version__,
            "summary": "A vision model as a running production system on one machine",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": {**_app_paths(apps), **_v2_paths(), **_server_paths()},
        "components": {"schemas": schemas, "securitySchemes": keys},
    }


def render(apps: Iterable[App]) -> bytes:
    """Return `document` as JSON."""
    return orjson.dumps(document(apps), option=orjson.OPT_INDENT_2)
