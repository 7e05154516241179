"""The settings table: what it takes, what it refuses, and that the README says the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scripts import settings_table
from sidecar.errors import SettingsError
from sidecar.settings import OF_KUBERNETES, Settings, variable

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_hold_in_an_empty_environment():
    assert Settings.from_environ({}) == Settings()


def test_other_programs_variables_are_left_alone():
    assert Settings.from_environ({"PATH": "/bin", "SIDE": "1"}) == Settings()


def test_what_kubernetes_tells_of_a_service_called_sidecar_is_passed_over():
    assert Settings.from_environ({
        "SIDECAR_SERVICE_HOST": "10.0.0.7", "SIDECAR_SERVICE_PORT": "8080",
        "SIDECAR_SERVICE_PORT_HTTP_MAIN": "8080", "SIDECAR_PORT": "tcp://10.0.0.7:8080",
        "SIDECAR_PORT_8080_TCP": "tcp://10.0.0.7:8080", "SIDECAR_PORT_8080_TCP_PROTO": "tcp",
        "SIDECAR_PORT_8080_TCP_PORT": "8080", "SIDECAR_PORT_8080_TCP_ADDR": "10.0.0.7",
    }) == Settings()


@pytest.mark.parametrize(("name", "value"), [
    ("SIDECAR_PORT", "9000"), ("SIDECAR_PORTS", "tcp://10.0.0.7:8080"),
    ("SIDECAR_PORT_TCP", "8080"), ("SIDECAR_PORT_8080_TCP_HOST", "10.0.0.7"),
    ("SIDECAR_PORT_8080_HTTP", "8080"), ("SIDECAR_SERVICE", "a"),
    ("SIDECAR_SERVICE_NAME", "a"), ("SIDECAR_SERVICE_PORTS", "8080")])
def test_name_that_only_resembles_one_of_kubernetes_is_refused(name, value):
    with pytest.raises(SettingsError, match=f"{name} is not a setting"):
        Settings.from_environ({name: value})


def test_no_setting_bears_a_name_of_kubernetes():
    assert not [field.name for field in dataclasses.fields(Settings)
                if OF_KUBERNETES.match(f"{variable(field.name)}=tcp://a")]


def test_values_are_read_in_their_type():
    read = Settings.from_environ({
        "SIDECAR_WINDOW": "200", "SIDECAR_WEIGHT": "0.5", "SIDECAR_PERSONALIZE": "off",
        "SIDECAR_OPENSEARCH_URL": "https://a:9200,https://b:9200", "SIDECAR_PASS": "all"})
    assert (read.window, read.weight, read.personalize) == (200, 0.5, False)
    assert read.opensearch_url == "https://a:9200,https://b:9200"
    assert read.passthrough == "all"


@pytest.mark.parametrize(("name", "value", "said"), [
    ("SIDECAR_WINDOWS", "200", "SIDECAR_WINDOWS is not a setting"),
    ("SIDECAR_WINDOW", "many", "SIDECAR_WINDOW is 'many'"),
    ("SIDECAR_WINDOW", "0", "must be 1-10000"),
    ("SIDECAR_WINDOW", "10001", "must be 1-10000"),
    ("SIDECAR_WEIGHT", "1.01", "must be 0.0-1.0"),
    ("SIDECAR_WEIGHT", "nan", "must be 0.0-1.0"),
    ("SIDECAR_TIMEOUT_MS", "-1", "must be at least 0.0"),
    ("SIDECAR_PERSONALIZE", "perhaps", "must be true or false"),
    ("SIDECAR_DEVICE", "tpu", "must be one of auto, cpu, cuda"),
    ("SIDECAR_UPSTREAM_TIMEOUT_S", "inf", "must be 0.1-1000000"),
    ("SIDECAR_REFRESH_S", "1e300", "must be 0.1-1000000"),
    ("SIDECAR_LISTEN", "", "must be HOST:PORT"),
    ("SIDECAR_LISTEN", "8080", "must be HOST:PORT"),
    ("SIDECAR_PRODUCTS_INDEX", "", "must be the name of an index"),
    ("SIDECAR_STATES_INDEX", "", "must be the name of one index"),
    ("SIDECAR_STATES_INDEX", "a,b", "must be the name of one index"),
    ("SIDECAR_EVENTS_INDEX", "events-*", "must be the name of one index"),
    ("SIDECAR_QUERIES_INDEX", "Queries", "lower case"),
    ("SIDECAR_QUERIES_INDEX", "ubi_events", "must be another index than SIDECAR_EVENTS_INDEX"),
    ("SIDECAR_OPENSEARCH_AUTHORIZATION", "Basic a\nX: b", "printable ASCII"),
    ("SIDECAR_ADMIN_AUTHORIZATION", "Bearer ü", "printable ASCII"),
    ("SIDECAR_CORS_ORIGINS", "shop.example", "must be * or SCHEME://HOST"),
    ("SIDECAR_CORS_ORIGINS", "https://shop.example/", "must be * or SCHEME://HOST"),
])
def test_refusal_names_the_variable_its_value_and_the_remedy(name, value, said):
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.from_environ({name: value})
    assert said in str(caught.value)


def test_refused_secret_is_not_shown():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"SIDECAR_OPENSEARCH_AUTHORIZATION": "Basic c2VjcmV0\n"})
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [
    ("SIDECAR_LISTEN", "[::1]:8080"), ("SIDECAR_LISTEN", "unix:/run/s"), ("SIDECAR_LISTEN", ":80"),
    ("SIDECAR_PRODUCTS_INDEX", "products-*,Old"), ("SIDECAR_STATES_INDEX", ".states-1"),
    ("SIDECAR_CORS_ORIGINS", "https://shop.example, http://localhost:3000"),
    ("SIDECAR_CORS_ORIGINS", "*"), ("SIDECAR_OPENSEARCH_AUTHORIZATION", "Basic YTpi==")])
def test_text_of_the_right_form_is_taken(name, value):
    assert value in dataclasses.astuple(Settings.from_environ({name: value}))


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_default_is_one_that_the_setting_would_take(field):
    text = str(field.default)
    assert getattr(Settings.from_environ({variable(field.name): text}), field.name) == field.default


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_bound_is_taken_and_what_lies_beyond_refused(field):
    name = variable(field.name)
    for bound, step in ((field.metadata["low"], -1), (field.metadata["high"], 1)):
        if bound is None:
            continue
        kind = type(field.default)
        assert getattr(Settings.from_environ({name: str(kind(bound))}), field.name) == bound
        with pytest.raises(SettingsError, match=name):
            Settings.from_environ({name: str(kind(bound + step))})


def test_readme_has_the_table_as_the_code_has_it():
    """After a change: ``python -m scripts.settings_table`` prints what belongs there."""
    assert settings_table.render() in (ROOT / "README.md").read_text(encoding="utf-8")
