"""deploy/kubernetes as far as it can be judged without a cluster: nothing here was applied to one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mozart.settings import DEFAULTS
from tests.unit.kit.kit_files import KUBERNETES, ROOT, compose, manifests, services, texts, trino_variables

README = (KUBERNETES / "README.md").read_text()
DOCUMENTS = [(file, document) for file, documents in manifests().items() for document in documents]
WORKERS = ["prefect-worker.values.yaml", "prefect-inline-worker.values.yaml"]
TRINO_SECRETS = {"TRINO_SHARED_SECRET", "ICEBERG_CATALOG_CREDENTIAL", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"}


def values(file: str) -> dict[str, Any]:
    (document,) = manifests()[file]
    return document


def addresses() -> dict[str, str]:
    lines = (KUBERNETES / "addresses.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def deployments() -> list[dict[str, Any]]:
    return [document for _, document in DOCUMENTS if document.get("kind") == "Deployment"]


def test_mozarts_image_is_that_of_compose() -> None:
    ours = services()["worker"]["image"]
    found = {
        f"{values(file)['worker']['image']['repository']}:{values(file)['worker']['image']['prefectTag']}"
        for file in WORKERS
    }
    found |= {
        container["image"] for each in deployments() for container in each["spec"]["template"]["spec"]["containers"]
    }
    assert found == {ours}
    assert services()["trino"]["image"] == f"trinodb/trino:{values('trino.values.yaml')['image']['tag']}"


def test_trino_gets_exactly_the_variables_that_its_files_take() -> None:
    given = {entry["name"] for entry in values("trino.values.yaml")["env"]}
    assert given | TRINO_SECRETS == trino_variables()
    assert not given & TRINO_SECRETS
    assert all(name in README for name in TRINO_SECRETS)


def test_trinos_values_are_those_of_compose_where_nothing_else_is_said() -> None:
    elsewhere = {"TRINO_COORDINATOR", "TRINO_COORDINATOR_WORKS"}
    plain = {entry["name"]: entry.get("value") for entry in values("trino.values.yaml")["env"]}
    from_compose = services()["trino"]["environment"]
    for name, value in plain.items():
        if name not in elsewhere and "$" not in from_compose[name]:
            assert value == from_compose[name], name


def test_each_kind_of_node_says_what_it_is() -> None:
    chart = values("trino.values.yaml")
    (role,) = [entry for entry in chart["env"] if entry["name"] == "TRINO_COORDINATOR"]
    label = re.fullmatch(r"metadata\.labels\['(.+)'\]", role["valueFrom"]["fieldRef"]["fieldPath"])
    assert label
    assert chart["coordinator"]["labels"] == {label[1]: "true"}
    assert chart["worker"]["labels"] == {label[1]: "false"}


def test_ports_of_trino_fit_its_variables() -> None:
    chart = values("trino.values.yaml")
    plain = {entry["name"]: entry.get("value") for entry in chart["env"]}
    assert str(chart["service"]["port"]) == plain["TRINO_HTTP_PORT"]
    assert str(chart["coordinator"]["additionalExposedPorts"]["https"]["port"]) == plain["TRINO_HTTPS_PORT"]
    assert plain["TRINO_DISCOVERY_URI"] == f"http://{chart['fullnameOverride']}:{plain['TRINO_HTTP_PORT']}"
    assert plain["TRINO_HTTPS_PORT"] == addresses()["MOZART_TRINO_PORT"] == DEFAULTS["MOZART_TRINO_PORT"]


def test_what_is_mounted_is_made_in_the_readme() -> None:
    named = set[str]()
    for _, document in DOCUMENTS:
        for text in _references(document):
            named.add(text)
    assert len(named) >= 7
    missing = {name for name in named if not re.search(rf"create (secret generic|configmap) {name}(?![\w-])", README)}
    assert missing == set()


def _references(tree: Any) -> list[str]:
    """The names of ConfigMaps and Secrets in a tree."""
    if isinstance(tree, list):
        return [name for item in tree for name in _references(item)]
    if not isinstance(tree, dict):
        return []
    found = [str(tree[key]) for key in ("secretName", "extraEnvVarsCM") if key in tree]
    found += [
        tree[key]["name"] for key in ("configMapRef", "secretRef", "configMap") if isinstance(tree.get(key), dict)
    ]
    found += [tree["configMap"]] if isinstance(tree.get("configMap"), str) else []
    return found + [name for value in tree.values() for name in _references(value)]


def test_files_that_the_readme_names_are_there() -> None:
    named = re.findall(r"(?:--from-file=|--from-env-file=|-f |--values )(?:[\w.-]+=)?((?:deploy|docker)/\S+)", README)
    assert len(named) >= 6
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert all(file in README for file in manifests())


@pytest.mark.parametrize("file", WORKERS)
def test_workers_are_not_root_and_can_write_where_they_must(file: str) -> None:
    worker = values(file)["worker"]
    assert worker["podSecurityContext"]["runAsUser"] == 1000
    assert worker["containerSecurityContext"]["readOnlyRootFilesystem"] is True
    writable = {volume["name"] for volume in worker["extraVolumes"] if "emptyDir" in volume}
    places = {mount["mountPath"] for mount in worker["extraVolumeMounts"] if mount["name"] in writable}
    home = next(entry["value"] for entry in worker["extraEnvVars"] if entry["name"] == "PREFECT_HOME")
    assert places == {"/opt/mozart/.mozart", home}


def test_daemons_are_not_root_and_bounded() -> None:
    assert [each["metadata"]["name"] for each in deployments()] == ["mozart-relay", "mozart-listen"]
    for each in deployments():
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert each["spec"]["selector"]["matchLabels"] == each["spec"]["template"]["metadata"]["labels"]
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert pod["containers"][0]["resources"]["limits"]["memory"]


def test_addresses_are_settings_and_no_secrets() -> None:
    explained = (ROOT / ".env.example").read_text() + (ROOT / "docs" / "guides" / "deployment.md").read_text()
    for name in addresses():
        assert not re.search("PASSWORD|SECRET|KEY", name)
        assert re.search(rf"\b{name}\b", explained), name
    unknown = set(addresses()) - set(compose()["x-addresses"])
    assert unknown == set()


def test_nothing_that_looks_like_a_secret_stands_in_a_file() -> None:
    for file, document in DOCUMENTS:
        assert document.get("kind") != "Secret", file
        for text in texts(document):
            assert not re.search(r"(?i)(password|secret_access_key)\s*[=:]\s*\S", text), f"{file}: {text}"
