"""The user's npm settings: registries, credentials, certificates and proxies.

Read as npm itself does (https://docs.npmjs.com/cli/configuring-npm/npmrc): ``npm_config_*``
variables win over the user's file, which wins over the machine's. A project's own ``.npmrc`` in
the working directory is not read: it belongs to whoever wrote that project, not to the user.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from retinue.core.errors import ConfigError, FetchError
from retinue.models.sources.transfer import is_loopback, show

DEFAULT_REGISTRY = "https://registry.npmjs.org/"
GLOBAL_FILES = (Path("/etc/npmrc"), Path("/usr/etc/npmrc"), Path("/usr/local/etc/npmrc"))
PREFIX = "npm_config_"
VARIABLE = re.compile(r"(?<!\\)\$\{([^${}?]+)(\?)?\}")


@dataclass(frozen=True, slots=True)
class NpmConfig:
    """npm settings, merged.

    Attributes:
        values: Key as in an ``.npmrc`` (with dashes) to its value.
    """

    values: Mapping[str, str]

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> NpmConfig:
        """Read the settings of this user on this machine.

        Raises:
            ConfigError: a settings file exists but cannot be read.
        """
        env = os.environ if environ is None else environ
        own = dict(_from_environment(env))
        home = Path(env.get("HOME") or Path.home())
        user = own.get("userconfig")
        machine = own.get("globalconfig")
        if machine is None and "prefix" in own:
            machine = str(Path(own["prefix"]) / "etc" / "npmrc")
        values: dict[str, str] = {}
        for file in (Path(machine),) if machine else GLOBAL_FILES:
            values.update(_from_file(file, env))
        values.update(_from_file(Path(user) if user else home / ".npmrc", env))
        values.update(own)
        return cls(values)

    def registry(self, package: str) -> httpx.URL:
        """Return the registry for a package, by its scope if that has one; ends with a slash.

        Raises:
            ConfigError: the setting is not an http(s) URL.
        """
        scope = package.partition("/")[0] if package.startswith("@") else ""
        text = self.values.get(f"{scope}:registry") if scope else None
        text = text or self.values.get("registry") or DEFAULT_REGISTRY
        try:
            url = httpx.URL(text if text.endswith("/") else text + "/")
        except httpx.InvalidURL as error:
            raise ConfigError(f"npm's registry setting {text!r} is not a URL: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"npm's registry setting {text!r} is not an https:// URL")
        return url

    def authorization(self, url: httpx.URL) -> dict[str, str]:
        """Return the header with the credential for a URL, empty if there is none for its host.

        The most specific key wins: ``//host/a/b/:_authToken`` before ``//host/:_authToken``.

        Raises:
            FetchError: the credential would be sent in the clear to another machine.
        """
        header = self._credential(url)
        if header and url.scheme != "https" and not is_loopback(url.host):
            raise FetchError(f"npm's credential is not sent to {show(url)}: it is not https")
        return {"Authorization": header} if header else {}

    def _credential(self, url: httpx.URL) -> str:
        parts = [part for part in url.path.split("/")[1:] if part]
        host = url.netloc.decode("ascii").rpartition("@")[2]
        for length in range(len(parts), -1, -1):
            key = "//" + "/".join([host, *parts[:length]]) + "/:"
            if token := self.values.get(key + "_authToken"):
                return f"Bearer {token}"
            if basic := self.values.get(key + "_auth"):
                return f"Basic {basic}"
            user, secret = self.values.get(key + "username"), self.values.get(key + "_password")
            if user and secret:
                try:
                    plain = user.encode() + b":" + base64.b64decode(secret, validate=True)
                except ValueError as error:
                    raise ConfigError(f"npm's {key}_password is not base64: {error}") from error
                return "Basic " + base64.b64encode(plain).decode("ascii")
        return ""

    @property
    def authorities(self) -> Path | None:
        """A file of further certificate authorities, or None."""
        file = self.values.get("cafile")
        return Path(file).expanduser() if file else None

    @property
    def strict_ssl(self) -> bool:
        """Whether servers' certificates are checked."""
        return self.values.get("strict-ssl", "true").strip().lower() != "false"

    @property
    def proxies(self) -> dict[str, str | None]:
        """httpx patterns to proxies that npm's own settings name, on top of the environment's."""
        patterns: dict[str, str | None] = {}
        for pattern, keys in (
            ("http://", ("proxy", "http-proxy")),
            ("https://", ("https-proxy", "proxy", "http-proxy")),
        ):
            named = [self.values[key] for key in keys if self.values.get(key, "null") != "null"]
            if named and named[0] != "false":
                patterns[pattern] = named[0]
        for host in self.values.get("noproxy", self.values.get("no-proxy", "")).split(","):
            if bare := host.strip().lstrip("*."):
                patterns[f"all://*{bare}" if bare == host.strip() else f"all://*.{bare}"] = None
        return patterns


def _from_environment(env: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in env.items():
        if name.lower().startswith(PREFIX) and value:
            key = name[len(PREFIX) :]
            if not key.startswith(("//", "@")):
                key = key[:1].lower() + key[1:].lower().replace("_", "-")
            values[key] = value
    return values


def _from_file(path: Path, env: Mapping[str, str]) -> dict[str, str]:
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read npm's settings in {path}: {error}") from error
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        key = key.strip()
        if key and equals and not key.startswith((";", "#", "[")) and not key.endswith("[]"):
            values[_expand(key, env)] = _expand(_value(value.strip()), env)
    return values


def _value(text: str) -> str:
    """Undo the quoting of npm's ini dialect; an unescaped ``;`` or ``#`` starts a comment."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    bare = re.split(r"(?<!\\)[;#]", text, maxsplit=1)[0]
    return re.sub(r"\\([;#\\])", r"\1", bare).strip()


def _expand(text: str, env: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return env.get(match[1], "" if match[2] else match[0])

    return VARIABLE.sub(value, text)
