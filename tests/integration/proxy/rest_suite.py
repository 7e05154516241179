"""Runs OpenSearch's own REST API tests (YAML) against any URL.

The tests and the description of the API come from the artifact ``rest-api-spec`` of Maven Central.
What a test may say is told in that artifact's README; what this runner cannot do raises
``Unsupported``, so that no test passes for want of looking.
"""

from __future__ import annotations

import http.client
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import yaml

ROOT = "rest-api-spec/"
FEATURES = {"allowed_warnings", "arbitrary_key", "contains", "default_shards", "headers",
            "node_selector", "regex", "stash_in_path", "stash_in_key", "warnings", "yaml",
            "close_to"}
CAUGHT = {"missing": (404,), "conflict": (409,), "forbidden": (403,), "bad_request": (400,),
          "request_timeout": (408,), "unavailable": (503,), "unauthorized": (401,),
          "request": range(400, 600)}


class Unsupported(Exception):
    """The test asks for something that this runner does not do."""


class Failed(AssertionError):
    """A test's expectation does not hold."""


class _Loader(yaml.SafeLoader):
    """Reads YAML as the tests mean it: no dates, and only true and false are truths."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool",
                           "tag:yaml.org,2002:float", "tag:yaml.org,2002:int")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}
for _tag, _pattern, _first in (
        ("bool", r"^(?:true|false)$", "tf"), ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
        ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$",
         "-+.0123456789")):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:float",
                        lambda loader, node: float(loader.construct_scalar(node)))
_Loader.add_constructor("tag:yaml.org,2002:int",
                        lambda loader, node: int(loader.construct_scalar(node)))


@dataclass(frozen=True)
class Test:
    """One test of a file, with the file's set-up and tear-down."""

    file: str
    name: str
    setup: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    teardown: list[dict[str, Any]]

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


@dataclass(frozen=True)
class Suite:
    """The API's description by name, and the tests."""

    apis: dict[str, Any]
    tests: list[Test]

    @classmethod
    def read(cls, jar: Path) -> Suite:
        apis: dict[str, Any] = {}
        tests: list[Test] = []
        with zipfile.ZipFile(jar) as archive:
            for name in sorted(archive.namelist()):
                if name.startswith(f"{ROOT}api/") and name.endswith(".json"):
                    if not name.rpartition("/")[2].startswith("_"):
                        apis.update(json.loads(archive.read(name)))
                elif name.startswith(f"{ROOT}test/") and name.endswith(".yml"):
                    tests.extend(_tests(name.removeprefix(f"{ROOT}test/"), archive.read(name)))
        return cls(apis, tests)


def _tests(file: str, text: bytes) -> Iterator[Test]:
    sections: dict[str, list[dict[str, Any]]] = {}
    for document in yaml.load_all(text, _Loader):
        for name, steps in (document or {}).items():
            sections[str(name)] = steps or []
    setup, teardown = sections.pop("setup", []), sections.pop("teardown", [])
    for name, steps in sections.items():
        yield Test(file, name, setup, steps, teardown)


@dataclass
class Answer:
    """What an API call came back with."""

    status: int
    headers: http.client.HTTPMessage
    text: bytes
    body: Any


@dataclass
class Runner:
    """Runs tests against one URL; ``headers`` go with every request.

    ``on_answer`` sees every answer of a test's own steps.
    """

    url: str
    suite: Suite
    version: tuple[int, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    seen: list[Answer] = field(default_factory=list)

    def run(self, test: Test) -> None:
        """Run one test on a node that holds nothing.

        Raises:
            Unsupported: the test is for another version, or asks for what this cannot do.
            Failed: an expectation does not hold.
        """
        play = _Play(self, f"{test}")
        try:
            for step in [*test.setup, *test.steps]:
                play.step(step)
        finally:
            for step in test.teardown:
                play.step(step)


class _Play:
    """One test under way: the last answer and what was stashed."""

    def __init__(self, runner: Runner, name: str) -> None:
        self._runner = runner
        self._name = name
        self._answer: Answer | None = None
        self._stash: dict[str, Any] = {}
        self._calls = 0

    def step(self, step: dict[str, Any]) -> None:
        for kind, told in step.items():
            getattr(self, f"_{kind}", self._unknown)(told)

    def _unknown(self, told: Any) -> None:
        raise Unsupported(f"unknown step {told}")

    def _skip(self, told: dict[str, Any]) -> None:
        features = told.get("features", [])
        wanted = features if isinstance(features, list) else [
            word.strip() for word in str(features).split(",")]
        missing = set(wanted) - FEATURES
        if missing:
            raise Unsupported(f"features {missing}")
        for part in str(told.get("version", "")).split(","):
            if part.strip() and self._is_within(part.strip()):
                raise Unsupported(f"not for this version: {told}")

    def _is_within(self, bounds: str) -> bool:
        if bounds == "all":
            return True
        low, _, high = (text.strip() for text in bounds.partition("-"))
        version = self._runner.version
        return (not low or version >= _version(low)) and (not high or version <= _version(high))

    def _do(self, told: dict[str, Any]) -> None:
        told = dict(told)
        catch = told.pop("catch", None)
        headers = {str(k): str(v) for k, v in (told.pop("headers", None) or {}).items()}
        for ignored in ("warnings", "allowed_warnings", "node_selector", "warnings_regex",
                        "allowed_warnings_regex"):
            told.pop(ignored, None)
        if len(told) != 1:
            raise Unsupported(f"a step of other than one call: {list(told)}")
        [(api, arguments)] = told.items()
        described = self._runner.suite.apis.get(api)
        if described is None:
            raise Unsupported(f"no api {api}")
        try:
            self._answer = self._call(described, self._filled(arguments or {}), headers)
        except LookupError as error:
            if catch == "param":
                return
            raise Unsupported(f"{api}: {error}") from error
        self._runner.seen.append(self._answer)
        self._check(api, catch)

    def _check(self, api: str, catch: str | None) -> None:
        assert self._answer is not None
        status, text = self._answer.status, self._answer.text
        if catch is None:
            if status >= 400 and not (api.partition(".")[2] or api).startswith("exists"):
                raise Failed(f"{api} answered {status}: {text[:500]!r}")
        elif catch.startswith("/"):
            plain = json.dumps(self._answer.body, ensure_ascii=False).replace('\\"', '"')
            forms = (text.decode().replace("\\n", "\n"), plain)
            if status < 400 or not any(re.search(catch[1:-1], form) for form in forms):
                raise Failed(f"{api} answered {status}, not {catch}: {text[:500]!r}")
        elif status not in CAUGHT.get(catch, ()):
            raise Failed(f"{api} answered {status}, not {catch}: {text[:500]!r}")

    def _call(self, described: dict[str, Any], arguments: dict[str, Any],
              headers: dict[str, str]) -> Answer:
        arguments = dict(arguments)
        body = arguments.pop("body", None)
        ignore = arguments.pop("ignore", None)
        path, methods, parts = _path(described, arguments)
        query = {k: _text(v) for k, v in arguments.items() if k not in parts}
        unknown = set(query) - set(described.get("params", {})) - {
            "pretty", "human", "error_trace", "source", "filter_path", "format", "h", "s", "v"}
        if unknown:
            raise LookupError(f"unknown parameters {unknown}")
        self._calls += 1
        method = methods[0]
        if body is not None and "GET" in methods and "POST" in methods:
            method = ("GET", "POST")[self._calls % 2]
        elif body is not None and method == "GET" and len(methods) > 1:
            method = methods[1]
        if described.get("body", {}) and described["body"].get("required") and body is None:
            raise LookupError("body is required")
        data, more = _payload(body)
        target = path + (f"?{urlencode(query)}" if query else "")
        answer = send(self._runner.url, method, target, data,
                      {**more, **self._runner.headers, **headers})
        if ignore is not None and answer.status in (
                ignore if isinstance(ignore, list) else [int(ignore)]):
            answer.status = 200
        return answer

    def _filled(self, value: Any) -> Any:
        """Put stashed values in place of ``$name``."""
        if isinstance(value, dict):
            return {self._filled(k) if isinstance(k, str) else k: self._filled(v)
                    for k, v in value.items()}
        if isinstance(value, list):
            return [self._filled(v) for v in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        if value.startswith("$") and value[1:].strip("{}") in self._stash:
            return self._stash[value[1:].strip("{}")]
        return re.sub(r"\$\{([^}]+)\}", lambda m: str(self._stash.get(m[1], m[0])), value)

    def _set(self, told: dict[str, Any]) -> None:
        for path, name in told.items():
            self._stash[str(name)] = self._at(path)

    def _at(self, path: str) -> Any:
        assert self._answer is not None
        value = self._answer.body
        if path in ("", "$body"):
            return value
        path = str(self._filled_path(path)).removeprefix("$body.")
        for key in re.split(r"(?<!\\)\.", path):
            key = key.replace("\\.", ".")
            value = _entry(value, key)
        return value

    def _filled_path(self, path: Any) -> str:
        parts = re.split(r"(?<!\\)\.", str(path))
        filled = []
        for part in parts:
            found = self._stash.get(part[1:]) if part.startswith("$") else None
            text = re.sub(r"\$\{([^}]+)\}", lambda m: str(self._stash.get(m[1], m[0])), part)
            filled.append(text if found is None else str(found).replace(".", "\\."))
        return ".".join(filled)

    def _match(self, told: dict[str, Any]) -> None:
        for path, expected in told.items():
            _match(self._at(path), self._filled(expected), path)

    def _length(self, told: dict[str, Any]) -> None:
        for path, expected in told.items():
            found = self._at(path)
            if found is None or len(found) != int(self._filled(expected)):
                raise Failed(f"{path} has length {None if found is None else len(found)}, "
                             f"not {expected}: {str(found)[:300]}")

    def _is_true(self, path: str) -> None:
        found = self._exists() if path == "" and self._is_bodiless() else self._at(path)
        if found is None or str(found) in ("", "False", "false", "0"):
            raise Failed(f"{path} is {found!r}, not true")

    def _is_false(self, path: str) -> None:
        found = self._exists() if path == "" and self._is_bodiless() else self._at(path)
        if not (found is None or str(found) in ("", "False", "false", "0")):
            raise Failed(f"{path} is {found!r}, not false")

    def _exists(self) -> bool:
        assert self._answer is not None
        return self._answer.status < 400

    def _is_bodiless(self) -> bool:
        assert self._answer is not None
        return not self._answer.text

    def _gt(self, told: dict[str, Any]) -> None:
        self._compare(told, lambda a, b: a > b, ">")

    def _gte(self, told: dict[str, Any]) -> None:
        self._compare(told, lambda a, b: a >= b, ">=")

    def _lt(self, told: dict[str, Any]) -> None:
        self._compare(told, lambda a, b: a < b, "<")

    def _lte(self, told: dict[str, Any]) -> None:
        self._compare(told, lambda a, b: a <= b, "<=")

    def _compare(self, told: dict[str, Any], holds: Any, sign: str) -> None:
        for path, expected in told.items():
            found = self._at(path)
            if found is None or not holds(found, self._filled(expected)):
                raise Failed(f"{path} is {found!r}, not {sign} {expected}")

    def _contains(self, told: dict[str, Any]) -> None:
        for path, expected in told.items():
            found, wanted = self._at(path), self._filled(expected)
            is_there = found is not None and (
                any(_holds(one, wanted) for one in found) if isinstance(found, list)
                else wanted in found)
            if not is_there:
                raise Failed(f"{path} does not contain {wanted}: {str(found)[:300]}")

    def _close_to(self, told: dict[str, Any]) -> None:
        for path, expected in told.items():
            found = self._at(path)
            if abs(found - expected["value"]) > expected["error"]:
                raise Failed(f"{path} is {found}, not close to {expected}")


def _holds(found: Any, wanted: Any) -> bool:
    try:
        _match(found, wanted, "")
    except Failed:
        return False
    return True


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip().split("-")[0].split(".")[:3])


def _path(described: dict[str, Any], arguments: dict[str, Any],
          ) -> tuple[str, list[str], set[str]]:
    """Return the path with the most parts that are given, filled in, and its methods."""
    best: tuple[int, str, list[str], set[str]] | None = None
    every = {part for path in described["url"]["paths"] for part in path.get("parts", {})}
    given = {name for name in every if name in arguments}
    for path in described["url"]["paths"]:
        parts = set(path.get("parts", {}))
        if parts <= set(arguments) and (best is None or len(parts) > best[0]) and (
                not path.get("deprecated") or best is None):
            best = (len(parts), path["path"], path["methods"], parts)
    if best is None or given - best[3]:
        raise LookupError(f"no path for {sorted(given)}")
    target = best[1]
    for part in best[3]:
        value = arguments[part]
        if value in ("", None):
            raise LookupError(f"{part} is empty")
        target = target.replace(f"{{{part}}}", quote(_text(value), safe=",*"))
    return target, best[2], best[3]


def _payload(body: Any) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, {}
    if isinstance(body, list):
        lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
                 for line in body]
        text = "".join(line if line.endswith("\n") else line + "\n" for line in lines)
        return text.encode(), {"Content-Type": "application/json"}
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return text.encode(), {"Content-Type": "application/json"}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return "" if value is None else str(value)


def send(url: str, method: str, target: str, data: bytes | None = None,
         headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request and read its answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request(method, target, data, dict(headers or {}))
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    kind = response.headers.get_content_type()
    body: Any = text.decode("utf-8", "replace")
    if text and "json" in kind:
        body = json.loads(text)
    elif text and "yaml" in kind:
        body = yaml.load(text, _Loader)
    return Answer(response.status, response.headers, text, body)


def _entry(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        if key == "_arbitrary_key_":
            return next(iter(value), None)
        return value.get(key)
    if isinstance(value, list) and re.fullmatch(r"\d+", key):
        return value[int(key)] if int(key) < len(value) else None
    return None


def _match(found: Any, expected: Any, path: Any) -> None:
    """Compare as the tests mean it: numbers by value, ``/…/`` as a pattern, all else exactly."""
    if isinstance(expected, str) and re.match(r"^\s*/.*/\s*$", expected, re.DOTALL):
        text = found if isinstance(found, str) else json.dumps(found)
        if not re.search(_java(expected.strip()[1:-1]), text, re.VERBOSE):
            raise Failed(f"{path} is {str(text)[:300]!r}, does not match {expected}")
    elif isinstance(expected, dict) and isinstance(found, dict):
        if set(map(str, expected)) != set(found):
            raise Failed(f"{path} has keys {sorted(found)}, not {sorted(map(str, expected))}")
        for key, value in expected.items():
            _match(found[str(key)], value, f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            raise Failed(f"{path} is {str(found)[:300]}, not {expected}")
        for k, (one, other) in enumerate(zip(found, expected, strict=True)):
            _match(one, other, f"{path}.{k}")
    elif found != expected or isinstance(found, bool) != isinstance(expected, bool):
        raise Failed(f"{path} is {str(found)[:300]!r}, not {expected!r}")


def _java(pattern: str) -> str:
    """Write a Java pattern as Python has it."""
    return pattern.replace("\\/", "/")


# What a test may leave in the cluster's metadata, and where to delete it.
REMAINS = {("repositories",): "/_snapshot/", ("data_stream", "data_stream"): "/_data_stream/",
           ("index_template", "index_template"): "/_index_template/",
           ("component_template", "component_template"): "/_component_template/",
           ("templates",): "/_template/", ("stored_scripts",): "/_scripts/",
           ("ingest", "pipeline"): "/_ingest/pipeline/",
           ("search_pipeline", "pipeline"): "/_search/pipeline/"}


def wipe(node: str) -> None:
    """Leave nothing of a test on the node: whatever it holds is deleted."""
    for everything in ("/_search/scroll/_all", "/_search/point_in_time/_all"):
        send(node, "DELETE", everything)
    metadata = send(node, "GET", "/_cluster/state/metadata").body["metadata"]
    for path, target in REMAINS.items():
        for name in _names(metadata, path):
            if target == "/_snapshot/":
                send(node, "DELETE", f"{target}{quote(name)}/*")
            send(node, "DELETE", target + quote(name))
    if metadata["indices"]:
        send(node, "DELETE", "/*?expand_wildcards=all&ignore_unavailable=true")
    settings = send(node, "GET", "/_cluster/settings").body
    reset = {kind: {f"{name}.*": None for name in settings[kind]}
             for kind in ("persistent", "transient") if settings[kind]}
    if reset:
        send(node, "PUT", "/_cluster/settings", json.dumps(reset).encode(),
             {"Content-Type": "application/json"})


def _names(metadata: Any, path: tuple[str, ...]) -> list[str]:
    for key in path:
        metadata = metadata.get(key, {})
    return [row["id"] for row in metadata] if isinstance(metadata, list) else list(metadata)
