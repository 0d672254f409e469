"""Files and variables of the catalogs of tenants with a lake of their own."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr

from mozart.lake.lakehouse import Lakehouse
from mozart.services.trino_access import access_rules, standard_users
from mozart.services.trino_catalogs import SHARED_FILE, dedicated_values, write_configuration
from mozart.tenancy.names import namespaces
from tests.projects import PROJECT
from tests.unit.services.test_trino_of_the_stack import OPERATOR

CONFIG = PROJECT / "docker" / "trino"
LAKE = Lakehouse(
    s3_endpoint="http://s3",
    catalog_uri="http://catalog",
    access_key_id="own-key",
    secret_access_key=SecretStr("own-secret"),
    warehouse="own",
)


def _variables(file: Path) -> set[str]:
    return set(re.findall(r"\$\{ENV:([A-Z0-9_]+)\}", file.read_text()))


def test_a_catalog_of_its_own_takes_its_identity_from_variables_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):  # a second start writes it anew
        write_configuration(tmp_path / "etc", CONFIG, ["acme_lake"])
    file = tmp_path / "etc" / "catalog" / "acme_lake.properties"
    shared, values = _variables(CONFIG / SHARED_FILE), dedicated_values("acme_lake", LAKE)
    assert _variables(file) - shared == set(values)
    own = {name.removeprefix("ACME_LAKE_") for name in values}
    assert not own & _variables(file)
    assert own <= shared
    assert {name for name in shared if re.search("SECRET|CREDENTIAL|KEY|WAREHOUSE", name)} == own
    assert (tmp_path / "etc" / SHARED_FILE).read_text() == (CONFIG / SHARED_FILE).read_text()
    assert "own-secret" not in file.read_text()


def test_a_tenants_rules_are_those_of_its_own_catalog() -> None:
    tenants = [namespaces("iceberg", "harbor"), namespaces("acme_lake", "acme")]
    rules = access_rules(standard_users(OPERATOR, tenants))
    assert '"catalog": "acme_lake|iceberg"' in rules  # the reader's
    for kind in ("schema", "privileges", "allow"):
        assert not re.search(rf'"user": "acme",\s+"catalog": "iceberg",\s+"{kind}"', rules)
        assert not re.search(rf'"user": "harbor",\s+"catalog": "acme_lake",\s+"{kind}"', rules)
    assert re.search(r'"user": "acme",\s+"catalog": "acme_lake",\s+"allow": "all"', rules)
